"""
Everything a run needs: definitions, runs, their journal, outbox, inbox, incidents, dead letters.

Written as SQL, because partitions, storage settings and partial indexes are what it is about.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_DEFINITION = """
CREATE TABLE saga_engine.definition (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    version integer NOT NULL,
    fingerprint text NOT NULL,
    document jsonb NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT definition_pinned UNIQUE (name, version, fingerprint)
)"""

_RUN = """
CREATE TABLE saga_engine.run (
    run_id uuid PRIMARY KEY,
    started_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    deadline timestamptz,
    wake_at timestamptz,
    definition_id integer NOT NULL,
    revision integer NOT NULL,
    status text NOT NULL,
    key text,
    input jsonb NOT NULL,
    state jsonb NOT NULL
) PARTITION BY RANGE (run_id)"""

_RUN_WAKE = "CREATE INDEX run_wake ON saga_engine.run (wake_at) WHERE wake_at IS NOT NULL"

_RUN_STATUS = """
CREATE INDEX run_status ON saga_engine.run (status, run_id) INCLUDE (definition_id)
    WHERE status <> 'completed'"""

# A few bytes for each 128 pages; retention asks it whether an old month has late finishers.
_RUN_FINISHED = "CREATE INDEX run_finished ON saga_engine.run USING brin (finished_at)"

_EVENT = """
CREATE TABLE saga_engine.event (
    run_id uuid NOT NULL,
    version integer NOT NULL,
    at timestamptz NOT NULL,
    position bigint NOT NULL DEFAULT nextval('saga_engine.event_position'),
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    type text NOT NULL,
    data jsonb NOT NULL,
    metadata jsonb NOT NULL,
    PRIMARY KEY (run_id, version)
) PARTITION BY RANGE (run_id)"""

# Runs are updated in place, five or so times, and runs that began together move on together: half
# of each page is kept free for that, which kept 85 of 100 updates of a batch HOT where a third kept
# 65. At the default scale factor a partition of ten million runs would be vacuumed every two.
_ADD_PARTITION = """
CREATE FUNCTION saga_engine.add_partition(parent text, suffix text, bounds text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    storage text := CASE parent
        WHEN 'run' THEN 'fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02,'
            ' autovacuum_analyze_scale_factor = 0.02'
        ELSE 'autovacuum_vacuum_insert_scale_factor = 0.1' END;
BEGIN
    EXECUTE format('CREATE TABLE saga_engine.%I PARTITION OF saga_engine.%I %s WITH (%s)',
        parent || '_' || suffix, parent, bounds, storage);
END $$"""

# The lower bound of a month is the UUIDv7 of its first millisecond with every other bit zero
# (RFC 9562, 5.7).
_MONTH_BOUND = """
CREATE FUNCTION saga_engine.month_bound(month timestamp) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT rpad(lpad(to_hex((extract(epoch FROM month) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$"""

# Rows that came before their partition are in the default one. They are taken out, the partition is
# made, and they are put in again, in one transaction that holds both tables.
_ADD_MONTH = """
CREATE FUNCTION saga_engine.add_month(parent text, month timestamp) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    suffix text := to_char(month, 'YYYY_MM');
    low uuid := saga_engine.month_bound(month);
    high uuid := saga_engine.month_bound(month + interval '1 month');
BEGIN
    IF to_regclass(format('saga_engine.%I', parent || '_' || suffix)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE saga_engine.%I IN ACCESS EXCLUSIVE MODE', parent);
    IF to_regclass(format('saga_engine.%I', parent || '_' || suffix)) IS NOT NULL THEN
        RETURN false;  -- another worker made it while this one waited
    END IF;
    EXECUTE format('CREATE TEMPORARY TABLE early ON COMMIT DROP AS'
        ' SELECT * FROM saga_engine.%I WHERE run_id >= %L AND run_id < %L',
        parent || '_default', low, high);
    EXECUTE format('DELETE FROM saga_engine.%I WHERE run_id >= %L AND run_id < %L',
        parent || '_default', low, high);
    PERFORM saga_engine.add_partition(
        parent, suffix, format('FOR VALUES FROM (%L) TO (%L)', low, high));
    EXECUTE format('INSERT INTO saga_engine.%I SELECT * FROM early', parent);
    DROP TABLE early;
    RETURN true;
END $$"""

_ADD_PARTITIONS = """
CREATE FUNCTION saga_engine.add_partitions(months_ahead integer) RETURNS integer
LANGUAGE sql AS $$
    SELECT count(*) FILTER (WHERE saga_engine.add_month(parent, month))::integer
    FROM unnest(ARRAY['run', 'event']) AS parent,
        generate_series(
            date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC'),
            date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')
                + make_interval(months => months_ahead),
            interval '1 month') AS month
$$"""

_RUN_KEY = """
CREATE TABLE saga_engine.run_key (
    saga text NOT NULL,
    key text NOT NULL,
    run_id uuid NOT NULL,
    input_digest bytea NOT NULL,
    PRIMARY KEY (saga, key)
)"""

_OUTBOX = """
CREATE TABLE saga_engine.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_at timestamptz,
    due_at timestamptz NOT NULL,
    version integer NOT NULL,
    attempt integer NOT NULL,
    saga text NOT NULL,
    step text NOT NULL,
    direction text NOT NULL,
    command text NOT NULL,
    idempotency_key text NOT NULL,
    payload json NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)"""

_INBOX = """
CREATE TABLE saga_engine.inbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reply_to text,
    correlation_id text,
    not_before timestamptz,
    definition_id integer,
    version integer,
    saga text,
    kind text NOT NULL,
    audit_id uuid,
    body jsonb NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)"""

_INBOX_RUN = "CREATE INDEX inbox_run ON saga_engine.inbox (run_id)"

_INCIDENT = """
CREATE TABLE saga_engine.incident (
    run_id uuid NOT NULL,
    number integer NOT NULL,
    step text NOT NULL,
    direction text NOT NULL,
    cause text NOT NULL,
    message text NOT NULL,
    opened_at timestamptz NOT NULL,
    resolved_at timestamptz,
    resolution text,
    by text,
    reason text,
    PRIMARY KEY (run_id, number)
)"""

_INCIDENT_OPEN = """
CREATE INDEX incident_open ON saga_engine.incident (opened_at) WHERE resolved_at IS NULL"""

_DEAD_LETTER = """
CREATE TABLE saga_engine.dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state text NOT NULL DEFAULT 'open',
    queue text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    run_id uuid,
    message_id text NOT NULL,
    correlation_id text NOT NULL,
    type text NOT NULL,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    properties jsonb NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    body_size bigint NOT NULL,
    truncated boolean NOT NULL,
    fingerprint text NOT NULL,
    resolved_at timestamptz,
    resolved_by text,
    resolved_reason text
)"""

# The queue and the reason are ours, so an index over them cannot be made too wide by a sender.
_DEAD_LETTER_OPEN = """
CREATE INDEX dead_letter_open ON saga_engine.dead_letter (queue, reason, id)
    WHERE state = 'open'"""

_AUDIT = """
CREATE TABLE saga_engine.audit (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    by text NOT NULL,
    action text NOT NULL,
    run_id uuid,
    target text,
    reason text NOT NULL,
    outcome text,
    message text
)"""

_AUDIT_RUN = "CREATE INDEX audit_run ON saga_engine.audit (run_id) WHERE run_id IS NOT NULL"

_ENGINE = """
CREATE TABLE saga_engine.engine (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    token_key bytea NOT NULL CHECK (octet_length(token_key) = 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""

_STATEMENTS = (
    *(_DEFINITION, _RUN, _RUN_WAKE, _RUN_STATUS, _RUN_FINISHED),
    *("CREATE SEQUENCE saga_engine.event_position", _EVENT),
    *(_ADD_PARTITION, _MONTH_BOUND, _ADD_MONTH, _ADD_PARTITIONS),
    "SELECT saga_engine.add_partition('run', 'default', 'DEFAULT')",
    "SELECT saga_engine.add_partition('event', 'default', 'DEFAULT')",
    "SELECT saga_engine.add_partitions(2)",
    *(_RUN_KEY, _OUTBOX, _INBOX, _INBOX_RUN, _INCIDENT, _INCIDENT_OPEN),
    *(_DEAD_LETTER, _DEAD_LETTER_OPEN, _AUDIT, _AUDIT_RUN, _ENGINE),
)


def upgrade() -> None:
    """Make all of it."""
    for statement in _STATEMENTS:
        op.execute(statement)
