"""A read model that only inserts: a row for each event."""

from sqlalchemy import BigInteger, Column, DateTime, MetaData, Table, Text

from benchmarks.events.orders import OrderConfirmed, OrderPlaced
from saga_engine.events import Change, Projection, Recorded, insert

METADATA = MetaData()

HISTORY = Table(
    "benchmark_history",
    METADATA,
    Column("position", BigInteger, primary_key=True),
    Column("stream", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
)

projection = Projection("benchmark-history", version=1, tables=[HISTORY])


@projection.on(OrderPlaced)
def placed(event: OrderPlaced, recorded: Recorded) -> Change:
    return _row(f"placed by {event.customer}", recorded)


@projection.on(OrderConfirmed)
def confirmed(event: OrderConfirmed, recorded: Recorded) -> Change:
    return _row(f"confirmed with {event.charge_id}", recorded)


def _row(what: str, recorded: Recorded) -> Change:
    return insert(
        HISTORY,
        key={"position": recorded.position},
        put={"stream": recorded.stream, "what": what, "recorded_at": recorded.recorded_at},
    )
