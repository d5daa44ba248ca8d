"""
Feeds: how far each one is, who runs it, and the events that it could not publish.

They are in the database of the events. A feed saves its position after the broker has confirmed the
events up to it.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

min_code_revision = "0001"

_RECORD_REVISION = "INSERT INTO saga_engine.event_schema_revision VALUES ('0003', '0001')"

# The row is updated with each batch; half of each page is free, so that updates are HOT. Retention
# keeps the journals that a reader of runs has not read. It drops them when the reader has not moved
# for too long; `missing_until` is then the last position of what it has missed. `differences` are
# sentences on a destination that is not as the feed declares it. `confirmed_ends` has the offset at
# which each partition of a Kafka topic ends at least: one that ends earlier has lost events.
_FEED = """
CREATE TABLE saga_engine.feed (
    name text COLLATE "C" NOT NULL,
    sink text COLLATE "C" NOT NULL CHECK (sink IN ('exchange', 'stream', 'kafka', 'webhook')),
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'stopped')),
    position bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    owner text,
    leased_until timestamptz,
    wanted_by text,
    wanted_until timestamptz,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reads_runs boolean NOT NULL DEFAULT true,
    missing_until bigint,
    rewinds integer NOT NULL DEFAULT 0,
    differences text[] NOT NULL DEFAULT '{}',
    confirmed_topic text NOT NULL DEFAULT '',
    confirmed_ends bigint[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (name, sink)
) WITH (fillfactor = 50)"""

# One row for each event that failed; what an operator did about it stays in it.
_FEED_FAILURE = """
CREATE TABLE saga_engine.feed_failure (
    feed text COLLATE "C" NOT NULL,
    sink text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    stream text NOT NULL,
    stream_version integer NOT NULL,
    type text NOT NULL,
    event_id uuid NOT NULL,
    error text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolution text CHECK (resolution IN ('retried', 'discarded')),
    resolved_at timestamptz,
    resolved_by text,
    reason text,
    PRIMARY KEY (feed, sink, position),
    FOREIGN KEY (feed, sink) REFERENCES saga_engine.feed ON DELETE CASCADE
)"""

# One row for each stream whose next event a webhook has refused, until it was delivered. The feed
# is beyond it. Without `retry_at` the event is a dead letter.
_FEED_WAITING_STREAM = """
CREATE TABLE saga_engine.feed_waiting_stream (
    feed text COLLATE "C" NOT NULL,
    sink text COLLATE "C" NOT NULL,
    stream text COLLATE "C" NOT NULL,
    next_position bigint NOT NULL,
    next_version integer NOT NULL,
    type text NOT NULL,
    event_id uuid NOT NULL,
    problem text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    first_failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    retry_at timestamptz,
    PRIMARY KEY (feed, sink, stream),
    FOREIGN KEY (feed, sink) REFERENCES saga_engine.feed ON DELETE CASCADE
)"""


def upgrade() -> None:
    """Create the tables of feeds."""
    for statement in (_FEED, _FEED_FAILURE, _FEED_WAITING_STREAM, _RECORD_REVISION):
        op.execute(statement)
