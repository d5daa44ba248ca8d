"""Events of orders, projectors in the test's process, and what their tables must have."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from random import Random
from typing import Any

from saga_engine.events import ANY, Append, EventData, Events, Projection, Recorded
from saga_engine.events.projections import projection_table
from saga_engine.events.projections.projection_table import StoredProjection
from saga_engine.events.projections.projector import Projector
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.events import EventRecorder
from tests.kit.programs import wait_until_true
from tests.kit.read_model import METADATA

FAST = {
    "projection_lease": 0.3,
    "event_poll_interval": 0.005,
    "event_poll_interval_max": 0.05,
    "feed_interval": 0.005,
}
"""Settings of a projector in a test."""


def placed(customer: str = "ada", total: str = "10.50") -> EventData:
    return EventData("order-placed", 1, {"customer": customer, "total": total})


def cancelled(reason: str = "cancelled") -> EventData:
    return EventData("order-cancelled", 1, {"reason": reason})


def random_events(rng: Random) -> list[EventData]:
    """What happens to an order, between two appends."""
    customers = ["ada", "grace", "edsger"]
    return [
        cancelled(rng.choice(["changed", "late"]))
        if rng.random() < 0.4
        else placed(rng.choice(customers), f"{rng.randint(0, 9999) / 100:.2f}")
        for _ in range(rng.randint(1, 4))
    ]


async def append_orders(events: Events, number: int, seed: int = 0) -> None:
    """Append to 20 streams, `number` times."""
    rng = Random(seed)
    for _ in range(number):
        await events.append(
            *(
                Append(f"order-{stream}", random_events(rng), ANY)
                for stream in rng.sample(range(20), 5)
            )
        )


async def append_one(events: Events, stream: str, *data: EventData) -> int:
    """Append to one stream; the position of the last event."""
    return (await events.append(Append(stream, data, ANY))).position


@asynccontextmanager
async def projection_database(url: str) -> AsyncIterator[Database]:
    """A database of a service, with the tables of the read model."""
    async with Database(url, Settings(), EVENT_DATABASE) as database:
        async with database.transaction() as tx:
            await tx.connection.run_sync(METADATA.create_all)
        yield database


@asynccontextmanager
async def running_projector(
    url: str, projections: Sequence[Projection], **settings: Any
) -> AsyncIterator[EventRecorder]:
    """A projector while the block runs; the telemetry events that it emits."""
    emitted, stop = EventRecorder(), asyncio.Event()
    chosen: dict[str, Any] = {**FAST, **settings}
    async with Projector(projections, url, Settings(**chosen), emitted) as projector:
        task = asyncio.create_task(projector.run(stop))  # noqa: TID251 - stopped and awaited here
        try:
            yield emitted
        finally:
            stop.set()
            await task


async def stored(database: Database, name: str) -> StoredProjection:
    async with database.transaction() as tx:
        (found,) = await projection_table.read(tx, name)
    return found


async def wait_for_position(
    database: Database, name: str, position: int, *, patience: float = 60.0
) -> None:
    """Wait until a projection has been registered and has passed a position."""

    async def passed() -> bool:
        async with database.transaction() as tx:
            found = await projection_table.read(tx, name)
        return any(each.position >= position for each in found)

    await wait_until_true(passed, patience=patience, interval=0.01)


async def rows(database: Database, table: str) -> list[tuple[Any, ...]]:
    async with database.transaction() as tx:
        return [tuple(row) for row in await tx.connection.execute(METADATA.tables[table].select())]


def expected_rows(events: Iterable[Recorded]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `orders_by_customer` and `order_by_id` must have after *events*, without folding."""
    by_customer: dict[str, tuple[int, Decimal]] = {}
    by_id: dict[str, tuple[str, str, int]] = {}
    for event in events:
        data: Any = event.data
        if event.type == "order-placed":
            customer = data["customer"]
            orders, total = by_customer.get(customer, (0, Decimal()))
            by_customer[customer] = (orders + 1, total + Decimal(data["total"]))
            by_id[event.stream] = (customer, "placed", event.version)
        elif event.stream in by_id:
            by_id[event.stream] = (by_id[event.stream][0], data["reason"], event.version)
    return by_customer, by_id


async def check_read_model(database: Database, events: Iterable[Recorded]) -> None:
    """Compare the tables with those events, applied one by one."""
    by_customer, by_id = expected_rows(events)
    found = {row[0]: row[1:] for row in await rows(database, "orders_by_customer")}
    assert found == by_customer
    assert {row[0]: row[1:] for row in await rows(database, "order_by_id")} == by_id
