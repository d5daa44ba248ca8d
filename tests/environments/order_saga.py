"""A saga and its participant, which writes an effect log to the database that a test names."""

import os

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from saga_engine import Participant, Rejected, Saga


class Order(BaseModel):
    order_id: str
    sold_out: bool = False


order = Saga("order", version=1, input=Order)


@order.step(command="shop.reserve")
def reserve(placed: Order) -> Order:
    return Order(order_id=placed.order_id)


@reserve.compensation(command="shop.release")
def release(placed: Order) -> Order:
    return Order(order_id=placed.order_id)


@order.step(command="shop.ship", pivot=True)
def ship(placed: Order) -> Order:
    return placed


URL = os.environ.get("SHOP_DATABASE_URL", "")

UNNAMED_STATEMENTS = {
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}
"""Arguments of an own SQLAlchemy engine behind a pooler, as docs/participants.md shows them."""


def database():
    """A URL, or an SQLAlchemy engine of the user."""
    own = {"plain": {}, "unnamed": UNNAMED_STATEMENTS}.get(os.environ.get("SHOP_ENGINE", ""))
    return URL if own is None else create_async_engine(URL, connect_args=own)


shop = Participant("shop", database=database())


async def record_effect(tx: AsyncConnection, order_id: str, effect: str) -> None:
    statement = text("INSERT INTO effect_log (order_id, effect) VALUES (:order_id, :effect)")
    await tx.execute(statement, {"order_id": order_id, "effect": effect})


@shop.command("shop.reserve")
async def on_reserve(command: Order, tx: AsyncConnection) -> None:
    await record_effect(tx, command.order_id, "reserve")


@shop.compensation("shop.release", of="shop.reserve")
async def on_release(command: Order, tx: AsyncConnection) -> None:
    await record_effect(tx, command.order_id, "release")


@shop.command("shop.ship")
async def on_ship(command: Order, tx: AsyncConnection) -> None:
    if command.sold_out:
        raise Rejected("sold_out", "It is sold out.")
    await record_effect(tx, command.order_id, "ship")
