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
    last_seen timestamptz NOT NULL DEFAULT now(),
    present_until timestamptz NOT NULL DEFAULT now(),
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

# By definition first: a worker finds the runs it can move without reading those of other workers.
_RUN_WAKE = """
CREATE INDEX run_wake ON saga_engine.run (definition_id, wake_at) WHERE wake_at IS NOT NULL"""

# Completed runs are in it too, so that the runs of a rare saga are found among those of all others.
_RUN_STATUS = """
CREATE INDEX run_status ON saga_engine.run (definition_id, status, run_id)"""

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
# made, and they are put in again, in one transaction that holds both tables. PostgreSQL reads the
# default partition whole while it holds them, so that must be small; it is, see `is_run_id`. The
# parent is locked before its partitions, as by everybody else.
_ADD_MONTH_PARTITION = """
CREATE FUNCTION saga_engine.add_month(parent text, month timestamp) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    suffix text := to_char(month, 'YYYY_MM');
    low uuid := saga_engine.month_bound(month);
    high uuid := saga_engine.month_bound(month + interval '1 month');
    small constant bigint := 16 * 1024 * 1024;  -- read in some 20 ms
BEGIN
    IF to_regclass(format('saga_engine.%I', parent || '_' || suffix)) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- Its size, because that leaves no lock behind: the parent comes first.
    IF pg_relation_size(format('saga_engine.%I', parent || '_default')) > small THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE ONLY saga_engine.%I IN ACCESS EXCLUSIVE MODE', parent);
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

# Run ids may be a week old when they arrive, so last month is there in the first days of a month.
_MISSING_PARTITIONS = """
CREATE FUNCTION saga_engine.missing_partitions(months_ahead integer)
RETURNS TABLE (parent text, month timestamp)
LANGUAGE sql AS $$
    SELECT p.parent, m.month
    FROM unnest(ARRAY['run', 'event']) WITH ORDINALITY AS p(parent, place),
        generate_series(
            date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC' - interval '7 days'),
            date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')
                + make_interval(months => months_ahead),
            interval '1 month') AS m(month)
    WHERE to_regclass(format('saga_engine.%I',
        p.parent || '_' || to_char(m.month, 'YYYY_MM'))) IS NULL
    ORDER BY p.place, m.month
$$"""

_ADD_PARTITIONS = """
CREATE FUNCTION saga_engine.add_partitions(months_ahead integer) RETURNS integer
LANGUAGE sql AS $$
    SELECT count(*) FILTER (WHERE saga_engine.add_month(parent, month))::integer
    FROM saga_engine.missing_partitions(months_ahead)
$$"""

# What a run id must be, so that it belongs to a month that has a partition: a UUIDv7 of about now.
_IS_VALID_RUN_ID = """
CREATE FUNCTION saga_engine.is_run_id(id uuid, age interval DEFAULT interval '7 days',
    lead interval DEFAULT interval '1 day') RETURNS boolean
LANGUAGE sql STABLE STRICT AS $$
    SELECT substr(id::text, 15, 1) = '7'
        AND id >= saga_engine.month_bound((clock_timestamp() AT TIME ZONE 'UTC') - age)
        AND id <= saga_engine.month_bound((clock_timestamp() AT TIME ZONE 'UTC') + lead)
$$"""

# By definition, because that is how the index finds the few unfinished among the many finished.
_MONTH_NEEDED = """
CREATE FUNCTION saga_engine.month_needed(suffix text, cutoff timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    low uuid := saga_engine.month_bound(to_date(suffix, 'YYYY_MM'));
    high uuid := saga_engine.month_bound(to_date(suffix, 'YYYY_MM') + interval '1 month');
    needed boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (
            SELECT FROM saga_engine.definition AS d,
                LATERAL (
                    SELECT FROM saga_engine.%1$I AS r
                    WHERE r.definition_id = d.id AND r.status IN (''running'', ''compensating'')
                    LIMIT 1) AS unfinished)
        OR EXISTS (SELECT FROM saga_engine.%1$I AS r WHERE r.finished_at > $1)
        OR EXISTS (
            SELECT FROM saga_engine.inbox AS i
            WHERE i.kind = ''start'' AND i.run_id >= $2 AND i.run_id < $3)',
        'run_' || suffix) INTO needed USING cutoff, low, high;
    RETURN needed;
END $$"""

# The parents first, `run` before `event`: that is how workers lock them.
_DETACH_MONTH = """
CREATE FUNCTION saga_engine.detach_month(suffix text, cutoff timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    parent text;
BEGIN
    LOCK TABLE ONLY saga_engine.run IN ACCESS EXCLUSIVE MODE;
    LOCK TABLE ONLY saga_engine.event IN ACCESS EXCLUSIVE MODE;
    IF NOT EXISTS (
        SELECT FROM pg_class AS c
        WHERE c.oid = to_regclass(format('saga_engine.%I', 'run_' || suffix)) AND c.relispartition
    ) OR saga_engine.month_needed(suffix, cutoff) THEN
        RETURN false;  -- another worker took it out, or a run has begun or ended meanwhile
    END IF;
    FOREACH parent IN ARRAY ARRAY['run', 'event'] LOOP
        EXECUTE format('ALTER TABLE saga_engine.%I DETACH PARTITION saga_engine.%I',
            parent, parent || '_' || suffix);
    END LOOP;
    RETURN true;
END $$"""

_BUSINESS_KEY = """
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

# Services and operators write rows by way of functions, and workers read them. The columns hold
# what a worker can read, however a row came there; the body is only text, read row by row.
_PENDING_REQUEST = """
CREATE TABLE saga_engine.inbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reply_to text,
    correlation_id text,
    not_before timestamptz,
    definition_id integer,
    version integer,
    fingerprint text,
    saga text,
    kind text NOT NULL,
    held boolean NOT NULL DEFAULT false,
    audit_id uuid,
    body text NOT NULL,
    key text,
    role text,
    CONSTRAINT inbox_kind CHECK (kind IN
        ('start', 'cancel', 'resolve', 'reply', 'malformed_reply', 'unroutable', 'wake_up')),
    CONSTRAINT inbox_start_has_saga CHECK (kind <> 'start' OR saga IS NOT NULL),
    CONSTRAINT inbox_version CHECK (version > 0),
    CONSTRAINT inbox_lengths CHECK (octet_length(saga) BETWEEN 1 AND 2000
        AND octet_length(key) BETWEEN 1 AND 2000
        AND octet_length(reply_to) <= 1000 AND octet_length(correlation_id) <= 1000),
    CONSTRAINT inbox_times CHECK (received_at BETWEEN '2000-01-01Z' AND '3000-01-01Z'
        AND not_before BETWEEN '2000-01-01Z' AND '3000-01-01Z')
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)"""

_PENDING_REQUEST_RUN = "CREATE INDEX inbox_run ON saga_engine.inbox (run_id) WHERE kind <> 'start'"

# A start that is asked for again while it waits is not stored again.
_PENDING_REQUEST_START_RUN = """
CREATE UNIQUE INDEX inbox_start_run ON saga_engine.inbox (run_id) WHERE kind = 'start'"""

# An act has one request, wherever that waits.
_PENDING_REQUEST_AUDIT = """
CREATE UNIQUE INDEX inbox_act ON saga_engine.inbox (audit_id) WHERE audit_id IS NOT NULL"""

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
    signed boolean NOT NULL DEFAULT false,
    type text NOT NULL,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    properties jsonb NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    body_size bigint NOT NULL,
    truncated boolean NOT NULL,
    fingerprint text NOT NULL,
    sender text NOT NULL DEFAULT '',
    resolved_at timestamptz,
    resolved_by text,
    resolved_reason text
)"""

# The queue and the reason are ours, and RabbitMQ has checked the sender's name, of 255 bytes at
# most: no sender can make an index over them too wide.
_DEAD_LETTER_OPEN = """
CREATE INDEX dead_letter_open ON saga_engine.dead_letter (queue, reason, sender, id)
    WHERE state = 'open'"""

# What came beyond the quota of its sender, counted instead of kept. At `full_at` a transaction
# began that counted the open ones and found the quota used up.
_DEAD_LETTER_DROPPED = """
CREATE TABLE saga_engine.dead_letter_dropped (
    queue text NOT NULL,
    reason text NOT NULL,
    sender text NOT NULL,
    dropped bigint NOT NULL,
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    full_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, reason, sender)
)"""

# What is to be deleted because it was settled long ago.
_DEAD_LETTER_RESOLVED = """
CREATE INDEX dead_letter_settled ON saga_engine.dead_letter (resolved_at)
    WHERE state <> 'open'"""

_AUDIT = """
CREATE TABLE saga_engine.audit (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    by text NOT NULL,
    role text,
    action text NOT NULL,
    run_id uuid,
    target text,
    reason text NOT NULL,
    outcome text,
    message text
)"""

_AUDIT_RUN = "CREATE INDEX audit_run ON saga_engine.audit (run_id) WHERE run_id IS NOT NULL"

# Runs whose code ended a worker, `times` workers so far; a retry recorded after pardoned_at counts.
_CRASH_SUSPECT = """
CREATE TABLE saga_engine.suspect (
    run_id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    times integer NOT NULL,
    step text NOT NULL,
    direction text NOT NULL,
    function text NOT NULL,
    pardoned_at timestamptz
)"""

_AUDIT_RECORDED_AT = "CREATE INDEX audit_at ON saga_engine.audit (at)"

_ENGINE_IDENTITY = """
CREATE TABLE saga_engine.engine (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    token_key bytea NOT NULL CHECK (octet_length(token_key) = 32),
    previous_token_key bytea CHECK (octet_length(previous_token_key) = 32),
    token_key_from timestamptz NOT NULL DEFAULT '-infinity',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""

_START_GRANT = """
CREATE TABLE saga_engine.start_grant (
    role text NOT NULL,
    saga text NOT NULL,
    PRIMARY KEY (role, saga)
)"""

# What follows is all that other roles than the worker's may call. Each function runs with the
# rights of its owner, finds nothing by a search path, checks the lengths of what it is given and
# writes the role of the session, which its caller cannot choose.

# The owner of the schema, and who is a member of it, may start any saga.
_MAY_START = """
CREATE FUNCTION saga_engine.may_start(wanted text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_has_role(session_user, c.relowner, 'MEMBER') OR EXISTS (
        SELECT FROM saga_engine.start_grant AS g JOIN pg_roles AS r ON r.rolname = g.role
        WHERE pg_has_role(session_user, r.oid, 'MEMBER') AND wanted LIKE
            replace(regexp_replace(g.saga, '([\\\\%_])', '\\\\\\1', 'g'), '*', '%'))
    FROM pg_class AS c WHERE c.oid = 'saga_engine.inbox'::regclass
$$"""

# The lock stands for the key while no row does, as in store/keys.py. Each statement here sees what
# was committed before it. What another run keeps of its input leaves here only when it is sealed.
# Workers write which definitions they have, and until when that counts. A start is pinned to the
# newest version that a worker has, or else to the one seen last: a database that was away for
# longer keeps no start out. The steps that a caller has must be those that a worker had last: a
# start pinned to others would wait without end.
_REQUEST_START = """
CREATE FUNCTION saga_engine.request_start(asked_saga text, asked_version integer, asked_run uuid,
    asked_key text, digest bytea, kept bytea, asked_body text, must_be_known boolean,
    asked_fingerprint text, OUT outcome text, OUT holder uuid, OUT pinned integer,
    OUT same boolean, OUT sealed bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    milliseconds bigint;
    held bytea;
    mark text;
    alive boolean;
    mine boolean;
    moment timestamptz := clock_timestamp();
BEGIN
    IF octet_length(asked_fingerprint) BETWEEN 1 AND 100 IS FALSE
            OR octet_length(asked_saga) BETWEEN 1 AND 2000 IS NOT TRUE
            OR octet_length(asked_key) BETWEEN 1 AND 2000 IS FALSE OR asked_version < 1
            OR octet_length(asked_body) <= 134217728 IS NOT TRUE
            OR (asked_key IS NOT NULL AND octet_length(kept) BETWEEN 32 AND 1000 IS NOT TRUE)
            OR asked_run::text !~ '^.{14}7.{4}[89ab]' IS NOT FALSE THEN
        RAISE 'A start is out of bounds.' USING ERRCODE = '22023', CONSTRAINT = 'request_start';
    END IF;
    milliseconds := ('x' || translate(left(asked_run::text, 13), '-', ''))::bit(48)::bigint;
    IF abs(milliseconds - extract(epoch FROM clock_timestamp()) * 1000) > 86400000 THEN
        RAISE 'The time of a run id is not that of now.'
            USING ERRCODE = '22023', CONSTRAINT = 'request_start_run_id';
    END IF;
    IF NOT saga_engine.may_start(asked_saga) THEN
        outcome := 'not_granted';
        RETURN;
    END IF;
    SELECT d.version, d.fingerprint, d.present_until > moment INTO pinned, mark, alive
        FROM saga_engine.definition AS d
        WHERE d.name = asked_saga AND (asked_version IS NULL OR d.version = asked_version)
        ORDER BY d.present_until > moment DESC,
            CASE WHEN d.present_until > moment THEN d.version END DESC,
            d.last_seen DESC, d.version DESC, d.id DESC LIMIT 1;
    IF pinned IS NULL AND (must_be_known IS NOT FALSE OR asked_version IS NULL
            OR asked_fingerprint IS NULL) THEN
        outcome := 'unknown_saga';
        RETURN;
    END IF;
    IF asked_fingerprint <> mark THEN
        SELECT d.present_until > moment INTO mine FROM saga_engine.definition AS d
            WHERE d.name = asked_saga AND d.version = pinned
                AND d.fingerprint = asked_fingerprint;
        IF mine IS NULL OR (alive AND NOT mine) THEN
            outcome := 'mismatch';
            RETURN;
        END IF;
    END IF;
    pinned := coalesce(pinned, asked_version);
    mark := coalesce(asked_fingerprint, mark);
    IF asked_key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(
            hashtextextended(format('saga-engine key %s/%s', asked_saga, asked_key), 0));
        SELECT k.run_id, k.input_digest INTO holder, held FROM saga_engine.run_key AS k
            WHERE k.saga = asked_saga AND k.key = asked_key;
        IF NOT FOUND THEN
            INSERT INTO saga_engine.run_key AS k (saga, key, run_id, input_digest)
                VALUES (asked_saga, asked_key, asked_run, kept)
                ON CONFLICT ON CONSTRAINT run_key_pkey DO NOTHING RETURNING k.run_id INTO holder;
            IF NOT FOUND THEN
                SELECT k.run_id, k.input_digest INTO holder, held FROM saga_engine.run_key AS k
                    WHERE k.saga = asked_saga AND k.key = asked_key;
                IF NOT FOUND THEN
                    RAISE 'A key was released while it was looked up.' USING ERRCODE = '40001';
                END IF;
            END IF;
        END IF;
        IF holder <> asked_run THEN
            outcome := 'held';
            same := CASE WHEN octet_length(held) = 32 THEN held = digest END;
            sealed := CASE WHEN octet_length(held) <> 32 THEN held END;
            RETURN;
        END IF;
    END IF;
    INSERT INTO saga_engine.inbox (run_id, version, fingerprint, saga, kind, key, body, role)
        VALUES (asked_run, pinned, mark, asked_saga, 'start', asked_key, asked_body, session_user);
    outcome := 'recorded';
    holder := asked_run;
END $$"""

_RECORD_ACTIONS = """
CREATE FUNCTION saga_engine.record_acts(ids uuid[], said_by text[], actions text[],
    run_ids uuid[], targets text[], reasons text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF cardinality(ids) <= 1000 IS NOT TRUE OR EXISTS (
            SELECT FROM unnest(ids, said_by, actions, run_ids, targets, reasons)
                AS u(id, by, action, run_id, target, reason)
            WHERE u.id IS NULL OR octet_length(u.by) BETWEEN 1 AND 2000 IS NOT TRUE
                OR u.action ~ '^[a-z_-]{1,40}$' IS NOT TRUE
                OR octet_length(u.target) <= 2000 IS FALSE
                OR octet_length(u.reason) <= 2000 IS NOT TRUE) THEN
        RAISE 'An act is out of bounds.' USING ERRCODE = '22023', CONSTRAINT = 'record_acts';
    END IF;
    INSERT INTO saga_engine.audit (id, by, role, action, run_id, target, reason)
    SELECT u.id, u.by, session_user, u.action, u.run_id, u.target, u.reason
    FROM unnest(ids, said_by, actions, run_ids, targets, reasons)
        AS u(id, by, action, run_id, target, reason)
    ON CONFLICT ON CONSTRAINT audit_pkey DO NOTHING;
END $$"""

# A request goes with an act that the same role has just put on record for the same run, says what
# the act says, and is the only one of it. The text of a body may be anything, so a cast of it that
# fails is a refusal. A worker may settle the act at this moment, so that is looked at last: the
# unique index has waited for that worker by then.
_ADD_OPERATOR_REQUESTS = """
CREATE FUNCTION saga_engine.add_requests(asked_kind text, allowed text[], run_ids uuid[],
    audit_ids uuid[], bodies text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    good boolean := false;
    added integer;
BEGIN
    IF cardinality(run_ids) <= 1000 IS NOT TRUE OR EXISTS (
            SELECT FROM unnest(run_ids, audit_ids, bodies) AS u(run_id, audit_id, body)
            WHERE u.run_id IS NULL OR u.audit_id IS NULL
                OR octet_length(u.body) <= 4194304 IS NOT TRUE) THEN
        RAISE 'A request is out of bounds: 1,000 at once, 4 MiB each.'
            USING ERRCODE = '22023', CONSTRAINT = 'add_requests';
    END IF;
    BEGIN
        good := NOT EXISTS (
            SELECT FROM unnest(run_ids, audit_ids, bodies) AS u(run_id, audit_id, body),
                LATERAL (SELECT u.body::jsonb AS said OFFSET 0) AS b
            WHERE NOT EXISTS (
                SELECT FROM saga_engine.audit AS a
                WHERE a.id = u.audit_id AND a.role = session_user AND a.run_id = u.run_id
                    AND a.action = ANY (allowed) AND a.by = b.said ->> 'operator'
                    AND a.reason = b.said ->> 'reason'
                    AND (asked_kind <> 'resolve' OR a.action = b.said ->> 'resolution')));
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        NULL;  -- not JSON, or JSON that PostgreSQL cannot read
    END;
    IF NOT good THEN
        RAISE 'The act of a request is not on record, or says something else than the request.'
            USING ERRCODE = '22023', CONSTRAINT = 'add_requests_act';
    END IF;
    INSERT INTO saga_engine.inbox (run_id, definition_id, kind, audit_id, body, role)
    SELECT u.run_id,
        (SELECT r.definition_id FROM saga_engine.run AS r WHERE r.run_id = u.run_id),
        asked_kind, u.audit_id, u.body, session_user
    FROM unnest(run_ids, audit_ids, bodies) WITH ORDINALITY AS u(run_id, audit_id, body, place)
    ORDER BY u.place
    ON CONFLICT (audit_id) WHERE audit_id IS NOT NULL DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    IF added < cardinality(run_ids) OR EXISTS (
            SELECT FROM saga_engine.audit AS a
            WHERE a.id = ANY (audit_ids) AND a.outcome IS NOT NULL) THEN
        RAISE 'An act has a request already, or is decided.'
            USING ERRCODE = '22023', CONSTRAINT = 'add_requests_once';
    END IF;
END $$"""

_REQUEST_CANCEL = """
CREATE FUNCTION saga_engine.request_cancel(run_ids uuid[], audit_ids uuid[], bodies text[])
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT saga_engine.add_requests('cancel', ARRAY['cancel'], run_ids, audit_ids, bodies)
$$"""

_REQUEST_RESOLVE = """
CREATE FUNCTION saga_engine.request_resolve(run_ids uuid[], audit_ids uuid[], bodies text[])
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT saga_engine.add_requests('resolve',
        ARRAY['retry', 'skip', 'complete', 'reject', 'abandon'], run_ids, audit_ids, bodies)
$$"""

# A start that waits for a definition that no worker has had in ten minutes: no worker can begin it,
# and none decides a cancel of its run. It did not begin, so that nothing is to be undone. A worker
# that takes the start at this moment holds its row, which is then gone.
_CANCEL_START = """
CREATE FUNCTION saga_engine.cancel_start(asked_run uuid, asked_act uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    start_saga text;
    start_key text;
BEGIN
    PERFORM FROM saga_engine.audit AS a
        WHERE a.id = asked_act AND a.role = session_user AND a.run_id = asked_run
            AND a.action = 'cancel' AND a.outcome IS NULL FOR UPDATE;
    IF NOT FOUND OR EXISTS (
            SELECT FROM saga_engine.inbox AS i WHERE i.audit_id = asked_act) THEN
        RAISE 'The act of a cancel is not on record, is decided, or has a request.'
            USING ERRCODE = '22023', CONSTRAINT = 'cancel_start_act';
    END IF;
    -- Only what a role has recorded is there once: a message may come again, and begin the run.
    DELETE FROM saga_engine.inbox AS i
        WHERE i.run_id = asked_run AND i.kind = 'start' AND i.role IS NOT NULL AND NOT EXISTS (
            SELECT FROM saga_engine.definition AS d
            WHERE d.name = i.saga AND (i.version IS NULL OR d.version = i.version)
                AND (i.fingerprint IS NULL OR d.fingerprint = i.fingerprint)
                AND greatest(d.present_until, d.last_seen + interval '10 minutes')
                    > clock_timestamp())
        RETURNING i.saga, i.key INTO start_saga, start_key;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM saga_engine.run_key AS k
        WHERE k.saga = start_saga AND k.key = start_key AND k.run_id = asked_run
            AND NOT EXISTS (SELECT FROM saga_engine.run AS r WHERE r.run_id = asked_run);
    UPDATE saga_engine.inbox SET held = false
        WHERE run_id = asked_run AND kind <> 'start' AND held;
    UPDATE saga_engine.audit SET outcome = 'accepted', message =
            'The run did not begin: no worker had its definition in the last 10 minutes.'
            || ' Its key is free again.'
        WHERE id = asked_act;
    RETURN true;
END $$"""

# As saga_engine.protocol.token makes it: HMAC-SHA-256 (RFC 2104), of which the first 128 bits are
# written in base64url. The key has 32 bytes, half a block; the rest of the block is zero.
_SIGN_TOKEN = """
CREATE FUNCTION saga_engine.sign_token(token_key bytea, said text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    inner_pad bytea := decode(repeat('36', 64), 'hex');
    outer_pad bytea := decode(repeat('5c', 64), 'hex');
    message bytea := convert_to('saga-engine correlation id 1', 'UTF8') || '\\x00'::bytea
        || convert_to(said, 'UTF8');
BEGIN
    FOR place IN 0..31 LOOP
        inner_pad := set_byte(inner_pad, place, get_byte(token_key, place) # 54);
        outer_pad := set_byte(outer_pad, place, get_byte(token_key, place) # 92);
    END LOOP;
    RETURN rtrim(translate(encode(substr(
        sha256(outer_pad || sha256(inner_pad || message)), 1, 16), 'base64'), '+/', '-_'), '=')
        || '.' || said;
END $$"""

# Redriving needs the correlation id that the command had. Of one that this engine made only the
# readable part is kept; the digest is made again here, with the key that is current.
_LOCK_DEAD_LETTERS = """
CREATE FUNCTION saga_engine.lock_dead_letters(ids bigint[]) RETURNS SETOF saga_engine.dead_letter
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    letter saga_engine.dead_letter;
    token_key bytea := (SELECT CASE WHEN e.token_key_from <= clock_timestamp()
        OR e.previous_token_key IS NULL THEN e.token_key ELSE e.previous_token_key END
        FROM saga_engine.engine AS e);
BEGIN
    IF cardinality(ids) <= 1000 IS NOT TRUE THEN
        RAISE 'Too many at once.' USING ERRCODE = '22023', CONSTRAINT = 'lock_dead_letters';
    END IF;
    FOR letter IN SELECT * FROM saga_engine.dead_letter AS d
            WHERE d.id = ANY (ids) AND d.state = 'open' ORDER BY d.id FOR UPDATE LOOP
        IF letter.signed THEN
            letter.correlation_id := saga_engine.sign_token(token_key, letter.correlation_id);
        END IF;
        RETURN NEXT letter;
    END LOOP;
END $$"""

_RESOLVE_DEAD_LETTERS = """
CREATE FUNCTION saga_engine.settle_dead_letters(ids bigint[], new_state text, said_by text,
    said_reason text) RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF cardinality(ids) <= 1000 IS NOT TRUE
            OR new_state IN ('redriven', 'discarded') IS NOT TRUE
            OR octet_length(said_by) BETWEEN 1 AND 2000 IS NOT TRUE
            OR octet_length(said_reason) <= 2000 IS NOT TRUE THEN
        RAISE 'What is said of dead letters is out of bounds.'
            USING ERRCODE = '22023', CONSTRAINT = 'settle_dead_letters';
    END IF;
    -- In one order, so that no two wait for each other.
    PERFORM FROM saga_engine.dead_letter AS d
        WHERE d.id = ANY (ids) AND d.state = 'open' ORDER BY d.id FOR UPDATE;
    RETURN QUERY WITH settled AS (
        UPDATE saga_engine.dead_letter AS d SET state = new_state,
            resolved_at = clock_timestamp(), resolved_by = said_by, resolved_reason = said_reason
        WHERE d.id = ANY (ids) AND d.state = 'open' RETURNING d.id, d.run_id
    ), recorded AS (
        INSERT INTO saga_engine.audit (id, by, role, action, run_id, target, reason, outcome,
            message)
        SELECT gen_random_uuid(), said_by, session_user,
            CASE new_state WHEN 'redriven' THEN 'redrive' ELSE 'discard' END,
            s.run_id, 'dead letter ' || s.id, said_reason, 'accepted', 'Done.'
        FROM settled AS s ORDER BY s.id
    )
    SELECT s.id FROM settled AS s ORDER BY s.id;
END $$"""

_PURGE_DEAD_LETTERS = """
CREATE FUNCTION saga_engine.purge_dead_letters(ids bigint[], said_by text, said_reason text)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    IF cardinality(ids) <= 1000 IS NOT TRUE
            OR octet_length(said_by) BETWEEN 1 AND 2000 IS NOT TRUE
            OR octet_length(said_reason) <= 2000 IS NOT TRUE THEN
        RAISE 'What is said of dead letters is out of bounds.'
            USING ERRCODE = '22023', CONSTRAINT = 'purge_dead_letters';
    END IF;
    PERFORM FROM saga_engine.dead_letter AS d WHERE d.id = ANY (ids) ORDER BY d.id FOR UPDATE;
    WITH deleted AS (
        DELETE FROM saga_engine.dead_letter AS d WHERE d.id = ANY (ids)
        RETURNING d.id, d.queue, d.reason
    ), groups AS (
        SELECT g.queue, g.reason, count(*) AS number, min(g.id) AS low, max(g.id) AS high
        FROM deleted AS g GROUP BY g.queue, g.reason
    ), recorded AS (
        INSERT INTO saga_engine.audit (id, by, role, action, target, reason, outcome, message)
        SELECT gen_random_uuid(), said_by, session_user, 'purge',
            format('%s dead letters of %s (%s), ids %s to %s',
                g.number, g.queue, g.reason, g.low, g.high),
            said_reason, 'accepted', 'Done.'
        FROM groups AS g
    )
    SELECT coalesce(sum(g.number), 0) INTO gone FROM groups AS g;
    RETURN gone::integer;
END $$"""

# A worker may delete what is past its days, and nothing younger than a day. An act that waits for
# its decision stays, however old. What another transaction has locked is left for the next time.
_PURGE_EXPIRED = """
CREATE FUNCTION saga_engine.purge_old(letter_days integer, act_days integer, most integer)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    letters integer := 0;
    acts integer := 0;
BEGIN
    IF letter_days >= 1 THEN
        DELETE FROM saga_engine.dead_letter AS d WHERE d.id = ANY (ARRAY(
            SELECT o.id FROM saga_engine.dead_letter AS o
            WHERE o.state <> 'open' AND o.resolved_at
                < (SELECT clock_timestamp()) - make_interval(days => letter_days)
            ORDER BY o.resolved_at LIMIT least(most, 1000) FOR UPDATE SKIP LOCKED));
        GET DIAGNOSTICS letters = ROW_COUNT;
    END IF;
    IF act_days >= 1 THEN
        DELETE FROM saga_engine.audit AS a WHERE a.id = ANY (ARRAY(
            SELECT o.id FROM saga_engine.audit AS o
            WHERE o.at < (SELECT clock_timestamp()) - make_interval(days => act_days)
                AND o.outcome IS NOT NULL
            ORDER BY o.at LIMIT least(most, 1000) FOR UPDATE SKIP LOCKED));
        GET DIAGNOSTICS acts = ROW_COUNT;
    END IF;
    RETURN letters + acts;
END $$"""

_REVOKE_FROM_PUBLIC = "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA saga_engine FROM PUBLIC"

_STATEMENTS = (
    *(_DEFINITION, _RUN, _RUN_WAKE, _RUN_STATUS, _RUN_FINISHED),
    *("CREATE SEQUENCE saga_engine.event_position", _EVENT),
    *(
        _ADD_PARTITION,
        _MONTH_BOUND,
        _ADD_MONTH_PARTITION,
        _MISSING_PARTITIONS,
        _ADD_PARTITIONS,
        _IS_VALID_RUN_ID,
    ),
    "SELECT saga_engine.add_partition('run', 'default', 'DEFAULT')",
    "SELECT saga_engine.add_partition('event', 'default', 'DEFAULT')",
    "SELECT saga_engine.add_partitions(12)",
    *(
        _BUSINESS_KEY,
        _OUTBOX,
        _PENDING_REQUEST,
        _PENDING_REQUEST_RUN,
        _PENDING_REQUEST_START_RUN,
        _PENDING_REQUEST_AUDIT,
    ),
    *(_INCIDENT, _INCIDENT_OPEN),
    *(_MONTH_NEEDED, _DETACH_MONTH),
    *(_DEAD_LETTER, _DEAD_LETTER_OPEN, _DEAD_LETTER_RESOLVED, _DEAD_LETTER_DROPPED),
    *(_AUDIT, _AUDIT_RUN, _AUDIT_RECORDED_AT, _CRASH_SUSPECT, _ENGINE_IDENTITY, _START_GRANT),
    *(
        _MAY_START,
        _REQUEST_START,
        _RECORD_ACTIONS,
        _ADD_OPERATOR_REQUESTS,
        _REQUEST_CANCEL,
        _REQUEST_RESOLVE,
    ),
    _CANCEL_START,
    *(_SIGN_TOKEN, _LOCK_DEAD_LETTERS, _RESOLVE_DEAD_LETTERS, _PURGE_DEAD_LETTERS, _PURGE_EXPIRED),
    _REVOKE_FROM_PUBLIC,
)


def upgrade() -> None:
    """Make all of it."""
    for statement in _STATEMENTS:
        op.execute(statement)
