"""The consumers that are measured: each writes a row for an event; a process runs one."""

from sqlalchemy import Column, Integer, MetaData, Table, Text
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.events.orders import OrderConfirmed, OrderPlaced
from saga_engine.events import Consumer, Received, from_kafka, from_queue, from_stream

METADATA = MetaData()
TOPIC = "orders"
"""Of Kafka."""

CONSUMED = Table(
    "benchmark_consumed",
    METADATA,
    Column("stream", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("what", Text, nullable=False),
)

_INSERT = CONSUMED.insert()

queue = Consumer("orders-of-queue", source=from_queue())
stream = Consumer("orders-of-stream", source=from_stream("partitioned-orders"))
topic = Consumer("orders-of-topic", source=from_kafka(TOPIC))


async def placed(event: OrderPlaced, received: Received, connection: AsyncConnection) -> None:
    await _insert(f"placed by {event.customer}", received, connection)


async def confirmed(event: OrderConfirmed, received: Received, connection: AsyncConnection) -> None:
    await _insert(f"confirmed with {event.charge_id}", received, connection)


for each in (queue, stream, topic):
    each.on(OrderPlaced)(placed)
    each.on(OrderConfirmed)(confirmed)


async def _insert(what: str, received: Received, connection: AsyncConnection) -> None:
    row = {"stream": received.stream, "version": received.version, "what": what}
    await connection.execute(_INSERT, row)
