"""
Consumers: how far each partition is, which events were consumed, and which could not be applied.

They are in the database of the effects, so that an effect and what is consumed are one transaction.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

min_code_revision = "0001"

_RECORD_REVISION = "INSERT INTO saga_engine.event_schema_revision VALUES ('0006', '0001')"

# `last_message` is a fingerprint of the message before `next_offset`: a source that was made again
# has another one there. The row is updated with each batch; half of each page is free, so that
# updates are HOT.
_CONSUMER = """
CREATE TABLE saga_engine.consumer (
    name text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    source text NOT NULL,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'stopped')),
    next_offset bigint,
    last_message uuid,
    applied bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    owner text,
    leased_until timestamptz,
    wanted_by text,
    wanted_until timestamptz,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, partition)
) WITH (fillfactor = 50)"""

# Each process measures, also while a batch has locked the row of the partition.
_CONSUMER_LAG = """
CREATE TABLE saga_engine.consumer_lag (
    consumer text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    messages bigint,
    seconds double precision,
    measured_at timestamptz,
    PRIMARY KEY (consumer, partition),
    FOREIGN KEY (consumer, partition) REFERENCES saga_engine.consumer ON DELETE CASCADE
) WITH (fillfactor = 50)"""

# `event` is made of the event's source and id, which can be long.
_CONSUMED_EVENT = """
CREATE TABLE saga_engine.consumed_event (
    consumer text COLLATE "C" NOT NULL,
    event uuid NOT NULL,
    consumed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, event)
)"""
_CONSUMED_EVENT_INDEX = """
CREATE INDEX consumed_event_at ON saga_engine.consumed_event (consumer, consumed_at)"""

# One row for each message that could not be applied or read, and for each that waits behind one of
# its stream. `attributes` to `body_size` are the message; null for one that is still in its source.
# What an operator did about a failure stays in its row.
_CONSUMER_FAILURE = """
CREATE TABLE saga_engine.consumer_failure (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    kind text NOT NULL CHECK (kind IN ('stopped', 'parked', 'waiting', 'unreadable')),
    event uuid NOT NULL,
    stream text COLLATE "C" NOT NULL,
    event_id text NOT NULL,
    type text NOT NULL,
    error text NOT NULL,
    trace text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attributes jsonb,
    problem text,
    content_encoding text,
    body bytea,
    body_size bigint,
    retry_requested_at timestamptz,
    resolution text CHECK (resolution IN ('retried', 'skipped')),
    resolved_at timestamptz,
    resolved_by text,
    reason text,
    UNIQUE (consumer, event),
    FOREIGN KEY (consumer, partition) REFERENCES saga_engine.consumer ON DELETE CASCADE
)"""
_OPEN_FAILURE_INDEX = """
CREATE INDEX consumer_failure_open ON saga_engine.consumer_failure (consumer, partition, stream, id)
WHERE resolution IS NULL"""


def upgrade() -> None:
    """Create the tables of consumers."""
    for statement in (
        _CONSUMER,
        _CONSUMER_LAG,
        _CONSUMED_EVENT,
        _CONSUMED_EVENT_INDEX,
        _CONSUMER_FAILURE,
        _OPEN_FAILURE_INDEX,
        _RECORD_REVISION,
    ):
        op.execute(statement)
