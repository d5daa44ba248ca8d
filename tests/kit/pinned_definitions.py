"""Definitions of two workers, and requests for them."""

from typing import Any

from sqlalchemy import text

from saga_engine.client import start_in_transaction
from saga_engine.saga.definition import Saga
from saga_engine.store.database import Database
from saga_engine.store.interfaces import Store


def buying(command: str = "stock.take", version: int = 1) -> Saga:
    saga = Saga("buy", version=version, input=dict)

    @saga.step(command=command, reply=dict)
    def take(order: dict) -> dict:
        return order

    return saga


A, B, SECOND = buying(), buying("stock.grab"), buying("stock.order", 2)


async def register_as_worker(store: Store, *sagas: Saga) -> list[int]:
    """Register as a worker does that starts."""
    async with store.transaction() as tx:
        return list((await tx.register_definitions(sagas)).values())


async def was_seen_an_hour_ago(database: Database, saga: Saga) -> None:
    async with database.transaction() as tx:
        changed = await tx.execute(
            text(
                "UPDATE saga_engine.definition SET last_seen = last_seen - interval '1 hour',"
                " present_until = present_until - interval '1 hour'"
                " WHERE fingerprint = :fingerprint"
            ),
            {"fingerprint": saga.fingerprint},
        )
        assert changed.rowcount == 1


async def record_start(database: Database, saga: str | Saga, **more: Any) -> int | None:
    async with database.transaction() as tx:
        return (await start_in_transaction(tx.connection, saga, {"n": 1}, **more)).version
