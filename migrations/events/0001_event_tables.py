"""
The event tables: positions, streams of events, snapshots, the identity of the log.

They are in the engine's database and in each database of a service that stores events. It is SQL,
because it is about a sequence, functions and triggers.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

min_code_revision = "0001"

# Which code can work on the event tables, see saga_engine/store/schema.py.
_EVENT_SCHEMA_REVISION = """
CREATE TABLE saga_engine.event_schema_revision (
    revision text PRIMARY KEY,
    min_code_revision text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""

_RECORD_REVISION = "INSERT INTO saga_engine.event_schema_revision VALUES ('0001', '0001')"

# Event ids are made of the id, so they differ from those of every other database. All events of
# runs from `runs_complete_from` on are stored: retention has dropped some of those before it.
_EVENT_LOG = """
CREATE TABLE saga_engine.event_log (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    runs_complete_from bigint NOT NULL DEFAULT 1
)"""

_CREATE_EVENT_LOG = "INSERT INTO saga_engine.event_log DEFAULT VALUES"

# Positions of all events of the database. An announcement is the last position that was drawn
# before, so the first value, 0, is drawn here: events have positions from 1. An advisory lock's key
# has 16 bits for the number 23147, which other locks do not have, and 48 for a position. No session
# may draw a value ahead of its use, so CACHE stays 1.
_EVENT_POSITION = """
CREATE SEQUENCE saga_engine.event_position
    MINVALUE 0 START WITH 0 MAXVALUE 281474976710655 CACHE 1"""

_DRAW_FIRST_POSITION = "SELECT nextval('saga_engine.event_position')"

# A position is drawn at the INSERT and is visible from the COMMIT, so a reader that continues after
# the highest position it has seen would miss events. Therefore a transaction announces, before it
# draws, a position below all that it will draw, with a shared advisory lock that it holds until its
# end. Shared locks do not wait for one another.
#
# One announcement is enough for a transaction, and one for each statement would fill the table of
# locks. The setting remembers it until the end of the transaction; rolling back to a savepoint
# undoes the setting and releases the lock together. It has the id of the transaction, so that a
# value that was set for the session has no effect.
_ANNOUNCE_POSITIONS = """
CREATE FUNCTION saga_engine.announce_positions() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    announcement constant text := pg_current_xact_id()::text;
BEGIN
    IF current_setting('saga_engine.announced', true) IS DISTINCT FROM announcement THEN
        PERFORM pg_advisory_xact_lock_shared((23147::bigint << 48) | (
            SELECT last_value FROM saga_engine.event_position));
        PERFORM set_config('saga_engine.announced', announcement, true);
    END IF;
END $$"""

_ANNOUNCE_BEFORE_INSERT = """
CREATE FUNCTION saga_engine.announce_before_insert() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM saga_engine.announce_positions();
    RETURN NULL;
END $$"""

# Draws consecutive positions, so that a row with several events stores only the first one. If
# another session has drawn in between, they are drawn again, now by one session at a time: two
# sessions could otherwise disturb each other without end. Rolling back the block releases that lock
# at once, and not at the end of the transaction; a sequence is not rolled back.
_DRAW_POSITIONS = """
CREATE FUNCTION saga_engine.draw_positions(number integer) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    first_position bigint;
    last_position bigint;
BEGIN
    IF number BETWEEN 1 AND 1000000 IS NOT TRUE THEN
        RAISE 'The number of positions must be 1 to 1000000.'
            USING ERRCODE = '22023', CONSTRAINT = 'draw_positions';
    END IF;
    PERFORM saga_engine.announce_positions();
    SELECT min(position), max(position) INTO first_position, last_position
        FROM (SELECT nextval('saga_engine.event_position') AS position
            FROM generate_series(1, number)) AS drawn;
    IF last_position - first_position = number - 1 THEN
        RETURN first_position;
    END IF;
    BEGIN
        PERFORM pg_advisory_xact_lock(23148::bigint << 48);
        LOOP
            SELECT min(position), max(position) INTO first_position, last_position
                FROM (SELECT nextval('saga_engine.event_position') AS position
                    FROM generate_series(1, number)) AS drawn;
            EXIT WHEN last_position - first_position = number - 1;
        END LOOP;
        RAISE SQLSTATE 'SE001';
    EXCEPTION WHEN SQLSTATE 'SE001' THEN
        RETURN first_position;
    END;
END $$"""

# Every event at or below the horizon is visible to a snapshot that is taken after this call, and no
# transaction will add one there. The order matters: the sequence is read first. A transaction that
# is not in pg_locks yet draws above that value; one that is not there any more is visible, because
# its locks are released after that. VOLATILE, so that each statement has a snapshot of its own.
_EVENT_HORIZON = """
CREATE FUNCTION saga_engine.event_horizon() RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    last_drawn bigint;
    announced bigint;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE 'A standby does not know which transactions of its primary are open.'
            USING ERRCODE = '25006';
    END IF;
    SELECT last_value INTO last_drawn FROM saga_engine.event_position;
    SELECT min(((classid::bigint & 65535) << 32) | objid::bigint) INTO announced
        FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 16 = 23147
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
    RETURN least(last_drawn, announced);
END $$"""

# The primary key is the optimistic lock of appends. `data` is json: jsonb would change the order of
# keys and numbers such as 1e16 and -0.0, and a state could differ from the one that was decided on.
_STREAM_EVENT = """
CREATE TABLE saga_engine.stream_event (
    stream text COLLATE "C" NOT NULL CHECK (stream NOT LIKE 'run-%'),
    version integer NOT NULL CHECK (version > 0),
    position bigint NOT NULL DEFAULT nextval('saga_engine.event_position'),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
        CHECK (recorded_at BETWEEN '2000-01-01Z' AND '3000-01-01Z'),
    type text NOT NULL,
    schema_version integer NOT NULL,
    data json NOT NULL,
    metadata jsonb NOT NULL CHECK (jsonb_typeof(metadata) = 'object'),
    PRIMARY KEY (stream, version)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.1)"""

# Unique, because a restored table whose sequence was not restored would draw positions again, and
# readers would pass over the events.
_STREAM_EVENT_POSITION = """
CREATE UNIQUE INDEX stream_event_position ON saga_engine.stream_event (position)"""

_STREAM_EVENT_ANNOUNCE = """
CREATE TRIGGER announce_positions BEFORE INSERT ON saga_engine.stream_event
    FOR EACH STATEMENT EXECUTE FUNCTION saga_engine.announce_before_insert()"""

# Also in a session that sets session_replication_role, as tools that copy tables do.
_STREAM_EVENT_ANNOUNCE_ALWAYS = """
ALTER TABLE saga_engine.stream_event ENABLE ALWAYS TRIGGER announce_positions"""

# One for each version of the code that is deployed, so that they do not replace each other's.
_SNAPSHOT = """
CREATE TABLE saga_engine.snapshot (
    stream text COLLATE "C" NOT NULL,
    fingerprint text NOT NULL,
    version integer NOT NULL,
    state json NOT NULL,
    PRIMARY KEY (stream, fingerprint)
) WITH (fillfactor = 70)"""

_REVOKE_FROM_PUBLIC = "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA saga_engine FROM PUBLIC"

_STATEMENTS = (
    *(_EVENT_SCHEMA_REVISION, _RECORD_REVISION, _EVENT_LOG, _CREATE_EVENT_LOG),
    *(_EVENT_POSITION, _DRAW_FIRST_POSITION),
    *(_ANNOUNCE_POSITIONS, _ANNOUNCE_BEFORE_INSERT, _DRAW_POSITIONS, _EVENT_HORIZON),
    *(_STREAM_EVENT, _STREAM_EVENT_POSITION, _STREAM_EVENT_ANNOUNCE),
    *(_STREAM_EVENT_ANNOUNCE_ALWAYS, _SNAPSHOT),
    _REVOKE_FROM_PUBLIC,
)


def upgrade() -> None:
    """Create the event tables."""
    for statement in _STATEMENTS:
        op.execute(statement)
