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
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    Sequence,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, TIMESTAMP, UUID

from saga_engine.store.tables import SCHEMA

metadata = MetaData(schema=SCHEMA)

event_position = Sequence("event_position", metadata=metadata, minvalue=0, start=0)

event_log = Table(
    "event_log",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("id", UUID(as_uuid=False), nullable=False, server_default=func.gen_random_uuid()),
    Column("runs_complete_from", BigInteger, nullable=False, server_default=text("1")),
)

stream_event = Table(
    "stream_event",
    metadata,
    Column(
        "stream",
        Text(collation="C"),
        CheckConstraint("stream NOT LIKE 'run-%'"),
        primary_key=True,
    ),
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
        CheckConstraint("recorded_at BETWEEN '2000-01-01Z' AND '3000-01-01Z'"),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column("type", Text, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("data", JSON, nullable=False),
    Column("metadata", JSONB, CheckConstraint("jsonb_typeof(metadata) = 'object'"), nullable=False),
)
Index("stream_event_position", stream_event.c.position, unique=True)

snapshot = Table(
    "snapshot",
    metadata,
    Column("stream", Text(collation="C"), primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("state", JSON, nullable=False),
)

projection = Table(
    "projection",
    metadata,
    Column("name", Text(collation="C"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('active', 'paused', 'stopped')"),
        nullable=False,
        server_default="active",
    ),
    Column("position", BigInteger, nullable=False, server_default=text("0")),
    Column("owner", Text),
    Column("leased_until", TIMESTAMP(timezone=True)),
    Column("wanted_by", Text),
    Column("wanted_until", TIMESTAMP(timezone=True)),
    Column(
        "updated_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column(
        "role",
        Text,
        CheckConstraint("role IN ('live', 'rebuild', 'previous')"),
        nullable=False,
        server_default="live",
    ),
    Column("code_version", Integer, nullable=False),
    Column("table_schema", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    Column("table_name", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    Column("rebuild_problem", Text),
    Column("has_tables", Boolean, nullable=False, server_default=text("true")),
    Column("replaced_at", TIMESTAMP(timezone=True)),
    Column("reads_runs", Boolean, nullable=False, server_default=text("true")),
    Column("missing_until", BigInteger),
    UniqueConstraint("name", "role", name="projection_role", deferrable=True),
)

operator_action = Table(
    "operator_action",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "kind", Text, CheckConstraint("kind IN ('projection', 'feed', 'consumer')"), nullable=False
    ),
    Column("name", Text(collation="C"), nullable=False),
    Column("sink", Text(collation="C")),
    Column(
        "action",
        Text,
        CheckConstraint(
            "action IN ('pause', 'resume', 'retry', 'skip', 'rebuild', 'switch', 'back',"
            " 'discard', 'rewind')"
        ),
        nullable=False,
    ),
    Column("version", Integer),
    Column("position", BigInteger),
    Column(
        "acted_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column("operator", Text, nullable=False),
    Column("reason", Text, nullable=False),
)
Index(
    "operator_action_subject",
    operator_action.c.kind,
    operator_action.c.name,
    operator_action.c.id,
)

projection_failure = Table(
    "projection_failure",
    metadata,
    Column("projection", Text(collation="C"), primary_key=True),
    Column("projection_version", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("stream", Text, nullable=False),
    Column("stream_version", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("trace", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("1")),
    Column(
        "failed_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column("resolution", Text, CheckConstraint("resolution IN ('retried', 'skipped')")),
    Column("resolved_at", TIMESTAMP(timezone=True)),
    Column("resolved_by", Text),
    Column("reason", Text),
    ForeignKeyConstraint(
        ["projection", "projection_version"],
        [projection.c.name, projection.c.version],
        ondelete="CASCADE",
    ),
)
parked_stream = Table(
    "parked_stream",
    metadata,
    Column("projection", Text(collation="C"), primary_key=True),
    Column("projection_version", Integer, primary_key=True, autoincrement=False),
    Column("stream", Text(collation="C"), primary_key=True),
    Column("next_position", BigInteger, nullable=False),
    Column("next_version", Integer, nullable=False),
    Column(
        "parked_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column("retry_requested_at", TIMESTAMP(timezone=True)),
    ForeignKeyConstraint(
        ["projection", "projection_version"],
        [projection.c.name, projection.c.version],
        ondelete="CASCADE",
    ),
)

feed = Table(
    "feed",
    metadata,
    Column("name", Text(collation="C"), primary_key=True),
    Column(
        "sink",
        Text(collation="C"),
        CheckConstraint("sink IN ('exchange', 'stream', 'kafka', 'webhook')"),
        primary_key=True,
    ),
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('active', 'stopped')"),
        nullable=False,
        server_default="active",
    ),
    Column("position", BigInteger, nullable=False, server_default=text("0")),
    Column("skipped", BigInteger, nullable=False, server_default=text("0")),
    Column("owner", Text),
    Column("leased_until", TIMESTAMP(timezone=True)),
    Column("wanted_by", Text),
    Column("wanted_until", TIMESTAMP(timezone=True)),
    Column(
        "updated_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column("reads_runs", Boolean, nullable=False, server_default=text("true")),
    Column("missing_until", BigInteger),
    Column("rewinds", Integer, nullable=False, server_default=text("0")),
    Column("differences", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("confirmed_topic", Text, nullable=False, server_default=""),
    Column("confirmed_ends", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
)
feed_failure = Table(
    "feed_failure",
    metadata,
    Column("feed", Text(collation="C"), primary_key=True),
    Column("sink", Text(collation="C"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("stream", Text, nullable=False),
    Column("stream_version", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("event_id", UUID(as_uuid=False), nullable=False),
    Column("error", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("1")),
    Column(
        "failed_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column("resolution", Text, CheckConstraint("resolution IN ('retried', 'discarded')")),
    Column("resolved_at", TIMESTAMP(timezone=True)),
    Column("resolved_by", Text),
    Column("reason", Text),
    ForeignKeyConstraint(["feed", "sink"], [feed.c.name, feed.c.sink], ondelete="CASCADE"),
)
feed_waiting_stream = Table(
    "feed_waiting_stream",
    metadata,
    Column("feed", Text(collation="C"), primary_key=True),
    Column("sink", Text(collation="C"), primary_key=True),
    Column("stream", Text(collation="C"), primary_key=True),
    Column("next_position", BigInteger, nullable=False),
    Column("next_version", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("event_id", UUID(as_uuid=False), nullable=False),
    Column("problem", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("1")),
    Column(
        "first_failed_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column(
        "failed_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column("retry_at", TIMESTAMP(timezone=True)),
    ForeignKeyConstraint(["feed", "sink"], [feed.c.name, feed.c.sink], ondelete="CASCADE"),
)

schema_subject = Table(
    "schema_subject",
    metadata,
    Column("subject", Text(collation="C"), primary_key=True),
    Column("kind", Text, CheckConstraint("kind IN ('event', 'command', 'reply')"), nullable=False),
    Column(
        "compatibility",
        Text,
        CheckConstraint(
            "compatibility IN ('backward', 'backward_transitive', 'forward',"
            " 'forward_transitive', 'full', 'full_transitive', 'none')"
        ),
        nullable=False,
    ),
)
schema = Table(
    "schema",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("subject", Text(collation="C"), ForeignKey(schema_subject.c.subject), nullable=False),
    Column("version", Integer, CheckConstraint("version > 0"), nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("writes", JSON, nullable=False),
    Column("reads", JSON, nullable=False),
    Column(
        "registered_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    UniqueConstraint("subject", "version", "fingerprint"),
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
