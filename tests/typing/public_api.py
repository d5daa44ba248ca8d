"""
The public API as a type checker sees it. mypy reads this file; nothing runs it.

`assert_type` holds what a name must be. A line with `type: ignore` must be an error: mypy's
`warn_unused_ignores` reports it when it no longer is.
"""

from datetime import timedelta
from typing import assert_type
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine import (
    Client,
    Codec,
    CommandContext,
    EncryptionError,
    Failed,
    Participant,
    Rejected,
    Retry,
    RunHandle,
    RunResult,
    Saga,
    Secret,
    start_in_transaction,
)


class Order(BaseModel):
    order_id: str
    card: Secret[str]


class Reservation(BaseModel):
    reservation_id: str


orders = Saga("place-order", version=1, input=Order, deadline=timedelta(minutes=10))
Saga(1, version=1, input=Order)  # type: ignore[arg-type]
Saga("place-order", "1", input=Order)  # type: ignore[call-arg, arg-type]


@orders.step(
    command="stock.reserve",
    reply=Reservation,
    timeout=timedelta(seconds=5),
    retry=Retry(attempts=3, initial=timedelta(milliseconds=200)),
)
def reserve(order: Order) -> dict[str, str]:
    return {"order_id": order.order_id}


@reserve.compensation(command="stock.release")
def release(order: Order) -> dict[str, str]:
    return {"order_id": order.order_id}


assert_type(release(Order(order_id="o-1", card=Secret("4111"))), dict[str, str])
orders.step("stock.reserve")  # type: ignore[call-arg]
Retry(attempts="3")  # type: ignore[arg-type]

services = Participant("stock")


@services.command("stock.reserve")
async def reserve_stock(
    order: Order, context: CommandContext, connection: AsyncConnection
) -> Reservation:
    assert_type(order.card.get_secret_value(), str)
    assert_type(context.idempotency_key, str)
    _ = assert_type(connection, AsyncConnection)
    if context.attempt > 1:
        raise Failed("stock_down", "The stock system does not answer.")
    if not order.order_id:
        raise Rejected("no_such_order", "The order has no id.", details={"order_id": ""})
    return Reservation(reservation_id="r-1")


async def start_and_wait(order: Order) -> None:
    async with Client("amqp://host/") as client:
        assert_type(client, Client)
        handle = await client.start(orders, order, key=order.order_id)
        assert_type(handle, RunHandle)
        assert_type(handle.run_id, UUID)
        result = await client.result(handle.run_id, timeout=60)
        assert_type(result, RunResult)
        assert_type(result.run_id, UUID)
        await client.start(orders)  # type: ignore[call-arg]


async def start_with_the_order(connection: AsyncConnection, order: Order) -> None:
    assert_type(await start_in_transaction(connection, orders, order, key="o-1"), RunHandle)


class Reversing:
    def encrypt(self, plaintext: bytes, associated_data: str) -> str | None:
        return associated_data + plaintext.decode()[::-1]

    def decrypt(self, ciphertext: str, associated_data: str) -> bytes:
        if not ciphertext.startswith(associated_data):
            raise EncryptionError("The associated data differs.")
        return ciphertext.removeprefix(associated_data)[::-1].encode()


codec: Codec = Reversing()
