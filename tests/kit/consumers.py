"""A consumer that writes invoices, in the test's process, and what its table must have."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import Column, Integer, MetaData, Numeric, Table, Text, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.events import Consumer, Received, Recorded, from_queue
from saga_engine.events.consumers import consumer_failures, consumer_lag, consumer_table
from saga_engine.events.consumers.avro_messages import AvroMessages
from saga_engine.events.consumers.consumer_batch import BatchApplier
from saga_engine.events.consumers.consumer_failures import StoredFailure
from saga_engine.events.consumers.consumer_table import Holder, PartitionKey, StoredPartition
from saga_engine.events.consumers.event_consumption import EventConsumption
from saga_engine.events.consumers.event_reader import EventReader
from saga_engine.events.consumers.interfaces import IncomingMessage
from saga_engine.events.consumers.partition_writer import PartitionWriter
from saga_engine.events.consumers.service import ConsumerService
from saga_engine.payload.guard import NO_TIME_LIMIT
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.connections import FAST_RECONNECT
from tests.kit.events import EventRecorder
from tests.kit.programs import wait_until_true
from tests.kit.projections import FAST
from tests.kit.read_model import Cancelled, Placed

METADATA = MetaData()
INVOICES = Table(
    "invoice",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("stream", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("customer", Text, nullable=False),
    Column("total", Numeric(12, 2)),
)
"""One row for each effect, in their order; it takes an effect that happens twice."""
BILLING = PartitionKey("billing", 0)
QUEUE = "queue saga.consumer.billing"
"""The source of that consumer, as it is stored."""


def billing_consumer(source: Any = None, *, poison: str = "poison", **options: Any) -> Consumer:
    """A consumer of orders; of the customer *poison* it can write none."""
    consumer = Consumer("billing", source=source or from_queue(), **options)

    @consumer.on(Placed)
    async def placed(event: Placed, received: Received, connection: AsyncConnection) -> None:
        if event.customer == poison:
            raise ValueError(event.customer)
        await write(connection, received, event.customer, event.total)

    @consumer.on(Cancelled)
    async def cancelled(event: Cancelled, received: Received, connection: AsyncConnection) -> None:
        await write(connection, received, event.reason, None)

    return consumer


async def write(
    connection: AsyncConnection, received: Recorded, customer: str, total: Decimal | None
) -> None:
    row = {"stream": received.stream, "version": received.version, "customer": customer}
    await connection.execute(INVOICES.insert().values(**row, total=total))


@asynccontextmanager
async def consumer_database(url: str, *, creates_tables: bool = True) -> AsyncIterator[Database]:
    """A database of a service, with the table of invoices."""
    async with Database(url, Settings(), EVENT_DATABASE, runs_user_sql=True) as database:
        if creates_tables:
            async with database.transaction() as tx:
                await tx.connection.run_sync(METADATA.create_all)
        yield database


@asynccontextmanager
async def registered_consumer(url: str) -> AsyncIterator[Database]:
    """That database, with the consumer `billing` at its beginning."""
    async with consumer_database(url) as database:
        async with database.transaction() as tx:
            await consumer_table.register(tx, "billing", QUEUE, 1)
            await consumer_lag.register(tx, "billing")
        yield database


@asynccontextmanager
async def applying(
    database: Database,
    consumer: Consumer,
    owner: str = "process-1",
    source: str = QUEUE,
    **settings: Any,
) -> AsyncIterator[tuple[BatchApplier, PartitionWriter]]:
    """The batches of a process that has taken the lease, and its writer."""
    chosen = Settings(**settings)
    reader = EventReader(consumer, chosen, AvroMessages(database, chosen))
    writer = PartitionWriter(
        database, reader, BILLING, Holder(owner, source), chosen, NO_TIME_LIMIT
    )
    assert await writer.acquire() is not None
    yield BatchApplier(writer, consumer.on_poison), writer


@asynccontextmanager
async def running_consumers(
    database_url: str, consumers: Sequence[Consumer], **settings: Any
) -> AsyncIterator[EventRecorder]:
    """A process with consumers while the block runs; the telemetry events that it emits."""
    emitted, stop = EventRecorder(), asyncio.Event()
    chosen = Settings(**{**FAST, **FAST_RECONNECT, **settings})
    async with EventConsumption(consumers, database_url, chosen, emitted) as consumption:
        task = asyncio.create_task(consumption.run(stop))  # noqa: TID251 - stopped and awaited here
        try:
            yield emitted
        finally:
            stop.set()
            await task


@asynccontextmanager
async def running_consumer_service(
    url: str, consumers: Sequence[Consumer], **settings: Any
) -> AsyncIterator[EventRecorder]:
    """The process of `saga-engine consume` while the block runs, which also measures."""
    emitted, stop = EventRecorder(), asyncio.Event()
    chosen = Settings(**{**FAST, **FAST_RECONNECT, "database_url": url, **settings})
    async with (
        ConsumerService(consumers, chosen, emitted) as service,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(service.run(stop))
        try:
            yield emitted
        finally:
            stop.set()


async def invoices(database: Database) -> list[tuple[str, int, str]]:
    """The stream, the version and the customer of each effect, in their order."""
    async with database.transaction() as tx:
        found = await tx.connection.execute(INVOICES.select().order_by(INVOICES.c.number))
        return [(row.stream, row.version, row.customer) for row in found]


async def wait_for_invoices(database: Database, number: int, *, patience: float = 60.0) -> None:
    count = select(func.count()).select_from(INVOICES)

    async def written() -> bool:
        async with database.transaction() as tx:
            found: int = (await tx.connection.execute(count)).scalar_one()
        return found >= number

    await wait_until_true(written, patience=patience, interval=0.02)


async def stored_partition(database: Database, name: str = "billing") -> StoredPartition:
    async with database.transaction() as tx:
        (found,) = await consumer_table.read(tx, name)
    return found


async def stored_partitions(database: Database) -> Sequence[StoredPartition]:
    async with database.transaction() as tx:
        return await consumer_table.read(tx)


async def open_failures(database: Database, name: str = "billing") -> Sequence[StoredFailure]:
    async with database.transaction() as tx:
        return await consumer_failures.read_open(tx, name, 100)


async def check_effects(database: Database, expected: Iterable[Recorded]) -> None:
    """Every event has taken effect once, in the order of its stream."""
    by_stream: dict[str, list[int]] = {}
    for event in expected:
        by_stream.setdefault(event.stream, []).append(event.version)
    found: dict[str, list[int]] = {}
    for stream, version, _ in await invoices(database):
        found.setdefault(stream, []).append(version)
    assert found == by_stream


def attributes_of(number: int, stream: str = "order-o-1", **more: Any) -> dict[str, Any]:
    """The attributes of the event of a number."""
    return {
        "specversion": "1.0",
        "id": f"00000000-0000-0000-0000-{number:012}",
        "source": "urn:uuid:0198c0de-0000-7000-8000-000000000001",
        "type": "order-placed",
        "subject": stream,
        "time": "2026-11-30T12:00:00.000001Z",
        "sequence": f"{number:019}",
        "streamversion": str(number),
        "schemaversion": "1",
        **more,
    }


def message_of(
    attributes: Mapping[str, Any], data: Any = None, *, body: bytes | None = None, **more: Any
) -> IncomingMessage:
    """A message as a source gives it."""
    content = body if body is not None else orjson.dumps(data)
    return IncomingMessage(attributes=attributes, body=content, body_size=len(content), **more)


def no_avro(_message: IncomingMessage) -> UnreadableMessage:
    """A reader of Avro that has no schema."""
    return UnreadableMessage(DeadLetterReason.INVALID_INPUT, "It has no schema.")


def order(number: int, customer: str = "ada", stream: str = "order-o-1", **more: Any) -> Any:
    """The message of an order of a customer."""
    data = {"customer": customer, "total": "12.50"}
    return message_of(attributes_of(number, stream), data, **more)
