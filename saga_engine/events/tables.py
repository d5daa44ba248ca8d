"""
The event tables as SQLAlchemy metadata, which a test compares with the result of the migrations.

They are in the schema of the engine, also in the database of a service. `migrations/events` makes
them, with their functions and triggers.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    Sequence,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, UUID

from saga_engine.store.tables import SCHEMA

metadata = MetaData(schema=SCHEMA)

event_position = Sequence("event_position", metadata=metadata, minvalue=0, start=0)

event_log = Table(
    "event_log",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("id", UUID(as_uuid=False), nullable=False, server_default=func.gen_random_uuid()),
)

stream_event = Table(
    "stream_event",
    metadata,
    Column("stream", Text(collation="C"), primary_key=True),
    Column("version", Integer, CheckConstraint("version > 0"), primary_key=True),
    Column(
        "position",
        BigInteger,
        nullable=False,
        server_default=text(f"nextval('{SCHEMA}.event_position'::regclass)"),
    ),
    Column(
        "recorded_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column("type", Text, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("data", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=False),
)
Index("stream_event_position", stream_event.c.position, unique=True)

snapshot = Table(
    "snapshot",
    metadata,
    Column("stream", Text(collation="C"), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("state", JSONB, nullable=False),
)

event_schema_revision = Table(
    "event_schema_revision",
    metadata,
    Column("revision", Text, primary_key=True),
    Column("min_code_revision", Text, nullable=False),
    Column(
        "applied_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
)
