"""
The tables as SQLAlchemy metadata, which a test compares with the result of the migrations.

All tables are in a PostgreSQL schema of their own, so that the engine can share a database with its
user's tables.

`run` and `journal` are partitioned by month of `run_id`, a UUIDv7 whose first 48 bits are a time,
so a run and its journal are dropped together. Storage settings belong to the partitions, which the
database function `add_partitions` creates. The hot tables have no foreign keys: each would lock the
referenced row with every insert.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import INTERVAL, JSON, JSONB, TIMESTAMP, UUID

SCHEMA = "saga_engine"

metadata = MetaData(schema=SCHEMA)


def _uuid() -> UUID[str]:
    return UUID(as_uuid=False)


def _timestamptz() -> TIMESTAMP:
    return TIMESTAMP(timezone=True)


definition = Table(
    "definition",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("document", JSONB, nullable=False),
    Column("first_seen", _timestamptz(), nullable=False, server_default=func.clock_timestamp()),
    Column("last_seen", _timestamptz(), nullable=False, server_default=func.now()),
    Column("present_until", _timestamptz(), nullable=False, server_default=func.now()),
    UniqueConstraint("name", "version", "fingerprint", name="definition_unique"),
)

run = Table(
    "run",
    metadata,
    Column("run_id", _uuid(), primary_key=True),
    Column("started_at", _timestamptz(), nullable=False),
    Column("finished_at", _timestamptz()),
    Column("deadline", _timestamptz()),
    Column("wake_at", _timestamptz()),
    Column("definition_id", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("key", Text),
    Column("result", JSONB),
    Column("cause", JSONB),
    Column("snapshot", JSONB),
    Column("snapshot_revision", Integer, nullable=False, server_default=text("0")),
    postgresql_partition_by="RANGE (run_id)",
)
# An ordinary step changes no column of a run. Both indexes begin with the definition, so that runs
# of other definitions are not read.
Index(
    "run_wake",
    run.c.definition_id,
    run.c.wake_at,
    postgresql_where=text("wake_at IS NOT NULL"),
)
Index("run_status", run.c.definition_id, run.c.status, run.c.run_id)

# Finds out whether a run of an old month finished after the cutoff, without reading the month.
Index("run_finished", run.c.finished_at, postgresql_using="brin")

journal = Table(
    "journal",
    metadata,
    Column("run_id", _uuid(), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("recorded_at", _timestamptz(), nullable=False),
    # Of its first event; the others follow. Drawn from the sequence of the event tables.
    Column("position", BigInteger, nullable=False),
    # Of the batch that has appended it; NULL: an operator's command has.
    Column("batch_id", BigInteger),
    Column("events", JSONB, nullable=False),
    postgresql_partition_by="RANGE (run_id)",
)
Index("journal_position", journal.c.position)

business_key = Table(
    "business_key",
    metadata,
    Column("saga", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("run_id", _uuid(), nullable=False),
    Column("input_digest", LargeBinary, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", _uuid(), nullable=False),
    Column("created_at", _timestamptz(), nullable=False, server_default=func.clock_timestamp()),
    Column("claimed_at", _timestamptz()),
    Column("due_at", _timestamptz(), nullable=False),
    Column("version", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("saga", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("payload", JSON, nullable=False),  # unchanged text; no statement reads inside
)

pending_request = Table(
    "pending_request",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", _uuid(), nullable=False),
    Column("received_at", _timestamptz(), nullable=False, server_default=func.clock_timestamp()),
    Column("definition_id", Integer),
    Column("version", Integer),
    Column("fingerprint", Text),
    Column("saga", Text),
    Column("awaits_start", Boolean, nullable=False, server_default=text("false")),
    Column("reply_to", Text),
    Column("correlation_id", Text),
    Column("not_before", _timestamptz()),
    Column("kind", Text, nullable=False),
    Column("audit_id", _uuid()),
    Column("body", Text, nullable=False),  # other roles may write it, so it is parsed row by row
    Column("key", Text),
    Column("role", Text),
    Column("sender", Text),
)
Index("pending_request_run", pending_request.c.run_id, postgresql_where=text("kind <> 'start'"))
Index(
    "pending_request_start_run",
    pending_request.c.run_id,
    unique=True,
    postgresql_where=text("kind = 'start'"),
)
Index(
    "pending_request_audit",
    pending_request.c.audit_id,
    unique=True,
    postgresql_where=text("audit_id IS NOT NULL"),
)
# With both a worker reads only rows that it can take: not those of other definitions, not those
# that are deferred or wait for a start.
Index(
    "pending_request_start",
    pending_request.c.saga,
    text("coalesce(version, 0)"),
    text("coalesce(fingerprint, '')"),
    text("coalesce(not_before, received_at)"),
    pending_request.c.id,
    postgresql_where=text("kind = 'start'"),
)
Index(
    "pending_request_other",
    text("coalesce(definition_id, 0)"),
    text("coalesce(not_before, received_at)"),
    pending_request.c.id,
    postgresql_where=text("kind <> 'start' AND NOT awaits_start"),
)

incident = Table(
    "incident",
    metadata,
    Column("run_id", _uuid(), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("step", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("opened_at", _timestamptz(), nullable=False),
    Column("resolved_at", _timestamptz()),
    Column("resolution", Text),
    Column("operator", Text),
    Column("reason", Text),
)
Index("incident_open", incident.c.opened_at, postgresql_where=text("resolved_at IS NULL"))

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("received_at", _timestamptz(), nullable=False, server_default=func.clock_timestamp()),
    Column("state", Text, nullable=False, server_default="open"),
    Column("queue", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("run_id", _uuid()),
    Column("message_id", Text, nullable=False),
    Column("correlation_id", Text, nullable=False),
    Column("is_engine_token", Boolean, nullable=False, server_default=text("false")),
    Column("type", Text, nullable=False),
    Column("exchange", Text, nullable=False),
    Column("routing_key", Text, nullable=False),
    Column("properties", JSONB, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_size", BigInteger, nullable=False),
    Column("truncated", Boolean, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("sender", Text, nullable=False, server_default=""),
    Column("resolved_at", _timestamptz()),
    Column("resolved_by", Text),
    Column("resolved_reason", Text),
)
Index(
    "dead_letter_open",
    dead_letter.c.queue,
    dead_letter.c.reason,
    dead_letter.c.sender,
    dead_letter.c.id,
    postgresql_where=text("state = 'open'"),
)

Index("dead_letter_resolved", dead_letter.c.resolved_at, postgresql_where=text("state <> 'open'"))

dead_letter_dropped = Table(
    "dead_letter_dropped",
    metadata,
    Column("queue", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("sender", Text, primary_key=True),
    Column("dropped_count", BigInteger, nullable=False),
    Column(
        "last_dropped_at", _timestamptz(), nullable=False, server_default=func.clock_timestamp()
    ),
    Column("quota_reached_at", _timestamptz(), nullable=False, server_default=func.now()),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _uuid(), primary_key=True),
    Column("recorded_at", _timestamptz(), nullable=False, server_default=func.clock_timestamp()),
    Column("operator", Text, nullable=False),  # the name that was given
    Column("role", Text),  # the role of the session
    Column("action", Text, nullable=False),
    Column("run_id", _uuid()),
    Column("target", Text),
    Column("reason", Text, nullable=False),
    Column("outcome", Text),
    Column("message", Text),
)
Index("audit_run", audit.c.run_id, postgresql_where=text("run_id IS NOT NULL"))
Index("audit_recorded_at", audit.c.recorded_at)

crash_suspect = Table(
    "crash_suspect",
    metadata,
    Column("run_id", _uuid(), primary_key=True),
    Column("last_crash_at", _timestamptz(), nullable=False, server_default=func.clock_timestamp()),
    Column("crash_count", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("function", Text, nullable=False),
    Column("retry_allowed_at", _timestamptz()),
)

engine_identity = Table(
    "engine_identity",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("id", _uuid(), nullable=False, server_default=func.gen_random_uuid()),
    Column("token_key", LargeBinary, nullable=False),
    Column("previous_token_key", LargeBinary),
    Column(
        "token_key_active_from", _timestamptz(), nullable=False, server_default=text("'-infinity'")
    ),
    Column("created_at", _timestamptz(), nullable=False, server_default=func.clock_timestamp()),
)

start_grant = Table(
    "start_grant",
    metadata,
    Column("role", Text, primary_key=True),
    Column("saga", Text, primary_key=True),
)

run_statistics = Table(
    "run_statistics",
    metadata,
    Column("saga", Text(collation="C"), primary_key=True),
    Column("status", Text, primary_key=True),
    Column("runs", BigInteger, nullable=False),
)

step_duration = Table(
    "step_duration",
    metadata,
    Column("saga", Text(collation="C"), primary_key=True),
    Column("step", Text(collation="C"), primary_key=True),
    Column("direction", Text, primary_key=True),
    Column("up_to_seconds", Double, primary_key=True),
    Column("steps", BigInteger, nullable=False),
    Column("total_duration", INTERVAL, nullable=False),
)

failure_cause = Table(
    "failure_cause",
    metadata,
    Column("saga", Text(collation="C"), primary_key=True),
    Column("step", Text(collation="C"), primary_key=True),
    Column("direction", Text, primary_key=True),
    Column("event", Text, primary_key=True),
    Column("code", Text(collation="C"), primary_key=True),
    Column("failures", BigInteger, nullable=False),
    Column("last_failed_at", _timestamptz(), nullable=False),
    Column("last_run_id", _uuid(), nullable=False),
)

schema_revision = Table(
    "schema_revision",
    metadata,
    Column("revision", Text, primary_key=True),
    Column("min_code_revision", Text, nullable=False),
    Column("applied_at", _timestamptz(), nullable=False, server_default=func.clock_timestamp()),
)
