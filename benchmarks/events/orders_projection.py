"""A read model of two tables: an order by its id, and what each customer has ordered."""

from sqlalchemy import BigInteger, Column, DateTime, MetaData, Numeric, Table, Text

from benchmarks.events.orders import OrderConfirmed, OrderPlaced
from saga_engine.events import Change, Projection, Recorded, put, upsert

METADATA = MetaData()

ORDER = Table(
    "benchmark_order",
    METADATA,
    Column("stream", Text, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("total", Numeric(12, 2), nullable=False),
    Column("placed_at", DateTime(timezone=True), nullable=False),
    Column("status", Text, nullable=False),
)
CUSTOMER = Table(
    "benchmark_customer",
    METADATA,
    Column("customer", Text, primary_key=True),
    Column("orders", BigInteger, nullable=False, server_default="0"),
    Column("total", Numeric(14, 2), nullable=False, server_default="0"),
)

projection = Projection("benchmark-orders", version=1, tables=[ORDER, CUSTOMER])


@projection.on(OrderPlaced)
def placed(event: OrderPlaced, recorded: Recorded) -> list[Change]:
    row = {
        "customer": event.customer,
        "total": event.total,
        "placed_at": event.placed_at,
        "status": "placed",
    }
    added = {"orders": 1, "total": event.total}
    return [
        upsert(ORDER, key={"stream": recorded.stream}, put=row),
        upsert(CUSTOMER, key={"customer": event.customer}, add=added),
    ]


@projection.on(OrderConfirmed)
def confirmed(_: OrderConfirmed, recorded: Recorded) -> Change:
    return put(ORDER, key={"stream": recorded.stream}, values={"status": "confirmed"})
