"""
The read model of the shop: an order by its id, the orders of a customer, and what each has ordered.

The tables are filled from the events of the orders, each exactly once. Nothing else writes them.
"""

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    MetaData,
    Numeric,
    Row,
    Table,
    Text,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from examples.shop.orders import OrderCancelled, OrderConfirmed, OrderCreated
from saga_engine.events import Change, Projection, Recorded, put, upsert

metadata = MetaData()
shop_order = Table(
    "shop_order",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("customer", Text, nullable=False, index=True),
    Column("items", JSONB, nullable=False),
    Column("total", Numeric(12, 2), nullable=False),
    Column("currency", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)
shop_customer = Table(
    "shop_customer",
    metadata,
    Column("customer", Text, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("orders", BigInteger, nullable=False, server_default="0"),
    Column("ordered", Numeric(14, 2), nullable=False, server_default="0"),
)

shop_orders = Projection("shop_orders", version=1, tables=[shop_order, shop_customer])


@shop_orders.on(OrderCreated)
def created(event: OrderCreated, recorded: Recorded) -> list[Change]:
    row = {
        "customer": event.customer,
        "items": event.items,
        "total": event.total,
        "currency": event.currency,
        "status": "created",
        "created_at": event.created_at,
    }
    customer = {"customer": event.customer, "currency": event.currency}
    return [
        upsert(shop_order, key=_key(recorded), put=row),
        upsert(shop_customer, key=customer, add={"orders": 1, "ordered": event.total}),
    ]


@shop_orders.on(OrderConfirmed)
def confirmed(_: OrderConfirmed, recorded: Recorded) -> Change:
    return put(shop_order, key=_key(recorded), values={"status": "confirmed"})


@shop_orders.on(OrderCancelled)
def cancelled(_: OrderCancelled, recorded: Recorded) -> Change:
    return put(shop_order, key=_key(recorded), values={"status": "cancelled"})


async def order_by_id(connection: AsyncConnection, order_id: str) -> Row[tuple[object, ...]] | None:
    """The order with this id; None if there is none."""
    query = select(shop_order).where(shop_order.c.order_id == order_id)
    return (await connection.execute(query)).first()


async def orders_by_customer(
    connection: AsyncConnection, customer: str
) -> Sequence[Row[tuple[object, ...]]]:
    """The orders of a customer, the newest first."""
    query = select(shop_order).where(shop_order.c.customer == customer)
    return (await connection.execute(query.order_by(shop_order.c.created_at.desc()))).all()


def _key(recorded: Recorded) -> dict[str, str]:
    return {"order_id": recorded.stream.removeprefix("order-")}
