"""The tables of consumers, as `tables` has the other event tables."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, UUID

from saga_engine.events.event_store.tables import metadata


def _now(name: str) -> Column[object]:
    return Column(
        name, TIMESTAMP(timezone=True), nullable=False, server_default=func.clock_timestamp()
    )


consumer = Table(
    "consumer",
    metadata,
    Column("name", Text(collation="C"), primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("source", Text, nullable=False),
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('active', 'paused', 'stopped')"),
        nullable=False,
        server_default="active",
    ),
    Column("next_offset", BigInteger),
    Column("last_message", UUID(as_uuid=False)),
    Column("applied", BigInteger, nullable=False, server_default=text("0")),
    Column("duplicates", BigInteger, nullable=False, server_default=text("0")),
    Column("owner", Text),
    Column("leased_until", TIMESTAMP(timezone=True)),
    Column("wanted_by", Text),
    Column("wanted_until", TIMESTAMP(timezone=True)),
    _now("updated_at"),
)
consumer_lag = Table(
    "consumer_lag",
    metadata,
    Column("consumer", Text(collation="C"), primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("messages", BigInteger),
    Column("seconds", Double),
    Column("measured_at", TIMESTAMP(timezone=True)),
    ForeignKeyConstraint(
        ["consumer", "partition"], [consumer.c.name, consumer.c.partition], ondelete="CASCADE"
    ),
)
consumed_event = Table(
    "consumed_event",
    metadata,
    Column("consumer", Text(collation="C"), primary_key=True),
    Column("event", UUID(as_uuid=False), primary_key=True),
    _now("consumed_at"),
)
Index("consumed_event_at", consumed_event.c.consumer, consumed_event.c.consumed_at)
consumer_failure = Table(
    "consumer_failure",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("consumer", Text(collation="C"), nullable=False),
    Column("partition", Integer, nullable=False),
    Column(
        "kind",
        Text,
        CheckConstraint("kind IN ('stopped', 'parked', 'waiting', 'unreadable')"),
        nullable=False,
    ),
    Column("event", UUID(as_uuid=False), nullable=False),
    Column("stream", Text(collation="C"), nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("trace", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("1")),
    _now("failed_at"),
    Column("attributes", JSONB),
    Column("problem", Text),
    Column("content_encoding", Text),
    Column("body", LargeBinary),
    Column("body_size", BigInteger),
    Column("retry_requested_at", TIMESTAMP(timezone=True)),
    Column("resolution", Text, CheckConstraint("resolution IN ('retried', 'skipped')")),
    Column("resolved_at", TIMESTAMP(timezone=True)),
    Column("resolved_by", Text),
    Column("reason", Text),
    UniqueConstraint("consumer", "event"),
    ForeignKeyConstraint(
        ["consumer", "partition"], [consumer.c.name, consumer.c.partition], ondelete="CASCADE"
    ),
)
Index(
    "consumer_failure_open",
    consumer_failure.c.consumer,
    consumer_failure.c.partition,
    consumer_failure.c.stream,
    consumer_failure.c.id,
    postgresql_where=consumer_failure.c.resolution.is_(None),
)
