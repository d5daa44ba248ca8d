"""
Another service: it writes an invoice for each order, of the events that the shop publishes.

It knows the names of the events and the fields that it needs, and nothing else of the shop.
"""

import os
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Column, MetaData, Numeric, Table, Text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.events import Consumer, Received, from_kafka, from_queue, from_stream

metadata = MetaData()
shop_invoice = Table(
    "shop_invoice",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("total", Numeric(12, 2), nullable=False),
    Column("currency", Text, nullable=False),
    Column("status", Text, nullable=False),
)

SOURCES: dict[str, Any] = {
    "queue": from_queue(),
    "stream": from_stream("shop-orders"),
    "kafka": from_kafka("shop-orders"),
}
"""The three feeds of the shop have the same events; SHOP_INVOICES_FROM chooses one."""


class OrderCreated(BaseModel):
    """What an invoice needs. Events of version 1 have no currency."""

    customer: str
    total: Decimal
    currency: str = "EUR"


invoices = Consumer("shop-invoices", source=SOURCES[os.environ.get("SHOP_INVOICES_FROM", "queue")])


@invoices.on("order-created")
async def write(event: OrderCreated, received: Received, connection: AsyncConnection) -> None:
    row = {"order_id": _order_id(received), **event.model_dump(), "status": "open"}
    await connection.execute(shop_invoice.insert().values(row))


@invoices.on("order-confirmed")
async def pay(_: dict[str, Any], received: Received, connection: AsyncConnection) -> None:
    await _set_status(connection, received, "paid")


@invoices.on("order-cancelled")
async def void(_: dict[str, Any], received: Received, connection: AsyncConnection) -> None:
    await _set_status(connection, received, "void")


async def _set_status(connection: AsyncConnection, received: Received, status: str) -> None:
    own = shop_invoice.c.order_id == _order_id(received)
    await connection.execute(shop_invoice.update().where(own).values(status=status))


def _order_id(received: Received) -> str:
    return received.stream.removeprefix("order-")
