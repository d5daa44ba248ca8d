"""A read model of orders: two events, two tables, a projection with both kinds of functions."""

from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, Numeric, Table, Text, text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.events.event_store.event_types import declare_event_type
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.projections.change import Change, put, upsert
from saga_engine.events.projections.projection import Projection

METADATA = MetaData()

BY_CUSTOMER = Table(
    "orders_by_customer",
    METADATA,
    Column("customer", Text, primary_key=True),
    Column("orders", Integer, nullable=False, server_default="0"),
    Column("total", Numeric(12, 2), nullable=False, server_default="0"),
)

BY_ID = Table(
    "order_by_id",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
)

HISTORY = Table(
    "order_history",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("what", Text, nullable=False),
)


class Placed(BaseModel):
    customer: str
    total: Decimal


class Cancelled(BaseModel):
    reason: str


declare_event_type(Placed, "order-placed", 1, f"{__file__}:1")
declare_event_type(Cancelled, "order-cancelled", 1, f"{__file__}:2")


def orders_projection(poison: str = "poison", *, version: int = 1, **options: Any) -> Projection:
    """Orders by id and by customer; a customer of the name *poison* can never be written."""
    projection = Projection("orders", version=version, tables=[BY_CUSTOMER, BY_ID], **options)

    @projection.on(Placed)
    def placed(event: Placed, recorded: Recorded) -> list[Change]:
        if event.customer == poison:
            raise ValueError(event.customer)
        added = {"orders": 1, "total": event.total}
        row = {"customer": event.customer, "status": "placed", "version": recorded.version}
        return [
            upsert(BY_CUSTOMER, key={"customer": event.customer}, add=added),
            upsert(BY_ID, key={"id": recorded.stream}, put=row),
        ]

    @projection.on(Cancelled)
    def cancelled(event: Cancelled, recorded: Recorded) -> Change:
        row = {"status": event.reason, "version": recorded.version}
        return put(BY_ID, key={"id": recorded.stream}, values=row)

    return projection


def history_projection() -> Projection:
    """Every event as a row, numbered in the order of the calls, by SQL."""
    projection = Projection("history", version=1, tables=[HISTORY])

    async def note(what: str, connection: AsyncConnection) -> None:
        statement = text(
            "INSERT INTO order_history"
            " SELECT coalesce(max(number), 0) + 1, :what FROM order_history"
        )
        await connection.execute(statement, {"what": what})

    @projection.on(Placed)
    async def placed(event: Placed, recorded: Recorded, connection: AsyncConnection) -> None:
        await note(f"{recorded.stream} {event.customer}", connection)

    @projection.on("order-cancelled")
    async def cancelled(data: Any, recorded: Recorded, connection: AsyncConnection) -> None:
        await note(f"{recorded.stream} {data['reason']}", connection)

    return projection
