"""
The initial schema: definitions, runs, journal, outbox, pending requests, incidents, dead letters.

The event tables (`migrations/events`) exist already: the journal draws its positions from their
sequence. It is SQL, because it is about partitions, storage settings, partial indexes and
functions.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

min_code_revision = "0001"

# Which code can work on the schema. Each migration adds a row; a process of an older version reads
# here whether it can continue, see saga_engine/store/schema.py.
_SCHEMA_REVISION = """
CREATE TABLE saga_engine.schema_revision (
    revision text PRIMARY KEY,
    min_code_revision text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""

_RECORD_REVISION = "INSERT INTO saga_engine.schema_revision VALUES ('0001', '0001')"

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
    CONSTRAINT definition_unique UNIQUE (name, version, fingerprint)
)"""

# A run is its journal. Its row has what is searched, and a snapshot once the journal is long, see
# store/runs.py.
_RUN = """
CREATE TABLE saga_engine.run (
    run_id uuid PRIMARY KEY,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    deadline timestamptz,
    wake_at timestamptz,
    definition_id integer NOT NULL,
    status text NOT NULL,
    key text,
    result jsonb,
    cause jsonb,
    snapshot jsonb,
    snapshot_revision integer NOT NULL DEFAULT 0
) PARTITION BY RANGE (run_id)"""

# The definition comes first, so that a worker reads only runs of definitions that it has.
_RUN_WAKE = """
CREATE INDEX run_wake ON saga_engine.run (definition_id, wake_at) WHERE wake_at IS NOT NULL"""

# It has completed runs too, so that runs of a rare saga are found among those of all others.
_RUN_STATUS = """
CREATE INDEX run_status ON saga_engine.run (definition_id, status, run_id)"""

# A few bytes for each 128 pages; retention uses it to find late finishers of an old month.
_RUN_FINISHED = "CREATE INDEX run_finished ON saga_engine.run USING brin (finished_at)"

# A row has the events of all decisions of one transaction about a run, see store/journal.py.
_JOURNAL = """
CREATE TABLE saga_engine.journal (
    run_id uuid NOT NULL,
    revision integer NOT NULL,
    recorded_at timestamptz NOT NULL,
    position bigint NOT NULL,
    batch_id bigint,
    events jsonb NOT NULL,
    PRIMARY KEY (run_id, revision)
) PARTITION BY RANGE (run_id)"""

# For readers of all journals in the order of their positions. With it PostgreSQL takes 670 instead
# of 610 us for the INSERT of 50 rows.
_JOURNAL_POSITION = "CREATE INDEX journal_position ON saga_engine.journal (position)"

# It fires for rows that are inserted into the table itself; `add_partition` adds one for those that
# a tool inserts into a partition. ALWAYS: also in a session that sets session_replication_role.
_JOURNAL_ANNOUNCE = """
CREATE TRIGGER announce_positions BEFORE INSERT ON saga_engine.journal
    FOR EACH STATEMENT EXECUTE FUNCTION saga_engine.announce_before_insert()"""

_JOURNAL_ANNOUNCE_ALWAYS = """
ALTER TABLE ONLY saga_engine.journal ENABLE ALWAYS TRIGGER announce_positions"""

# Most runs are updated once, when they finish. That changes an indexed column, so free space in the
# page would not make it a HOT update. At the default scale factor a partition of ten million runs
# would be vacuumed once every two million updates.
_ADD_PARTITION = """
CREATE FUNCTION saga_engine.add_partition(parent text, suffix text, bounds text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    storage text := CASE parent
        WHEN 'run' THEN 'autovacuum_vacuum_scale_factor = 0.02,'
            ' autovacuum_analyze_scale_factor = 0.02'
        ELSE 'autovacuum_vacuum_insert_scale_factor = 0.1' END;
BEGIN
    EXECUTE format('CREATE TABLE saga_engine.%I PARTITION OF saga_engine.%I %s WITH (%s)',
        parent || '_' || suffix, parent, bounds, storage);
    IF parent = 'journal' THEN
        EXECUTE format('CREATE TRIGGER announce_positions BEFORE INSERT ON saga_engine.%I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION saga_engine.announce_before_insert()',
            parent || '_' || suffix);
        EXECUTE format('ALTER TABLE saga_engine.%I ENABLE ALWAYS TRIGGER announce_positions',
            parent || '_' || suffix);
    END IF;
END $$"""

# The lower bound of a month is the UUIDv7 of its first millisecond with every other bit zero
# (RFC 9562, 5.7).
_MONTH_BOUND = """
CREATE FUNCTION saga_engine.month_bound(month timestamp) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT rpad(lpad(to_hex((extract(epoch FROM month) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$"""

# Rows that were inserted before their partition exists are in the default partition. They are moved
# out, the partition is created, and they are inserted again, in one transaction that locks both
# tables. PostgreSQL reads the whole default partition under that lock, so it must be small; it is,
# because of `is_valid_run_id`. The parent is locked before its partitions, as in every transaction.
_ADD_MONTH_PARTITION = """
CREATE FUNCTION saga_engine.add_month_partition(parent text, month timestamp) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    suffix text := to_char(month, 'YYYY_MM');
    low uuid := saga_engine.month_bound(month);
    high uuid := saga_engine.month_bound(month + interval '1 month');
    default_partition_max_bytes constant bigint := 16 * 1024 * 1024;  -- read in about 20 ms
BEGIN
    IF to_regclass(format('saga_engine.%I', parent || '_' || suffix)) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- Its size, because reading that takes no lock: the parent is locked first.
    IF pg_relation_size(format('saga_engine.%I', parent || '_default'))
            > default_partition_max_bytes THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE ONLY saga_engine.%I IN ACCESS EXCLUSIVE MODE', parent);
    IF to_regclass(format('saga_engine.%I', parent || '_' || suffix)) IS NOT NULL THEN
        RETURN false;  -- another worker has added it in the meantime
    END IF;
    EXECUTE format('CREATE TEMPORARY TABLE moved_rows ON COMMIT DROP AS'
        ' SELECT * FROM saga_engine.%I WHERE run_id >= %L AND run_id < %L',
        parent || '_default', low, high);
    EXECUTE format('DELETE FROM saga_engine.%I WHERE run_id >= %L AND run_id < %L',
        parent || '_default', low, high);
    PERFORM saga_engine.add_partition(
        parent, suffix, format('FOR VALUES FROM (%L) TO (%L)', low, high));
    EXECUTE format('INSERT INTO saga_engine.%I SELECT * FROM moved_rows', parent);
    DROP TABLE moved_rows;
    RETURN true;
END $$"""

# Run ids may be a week old, so in the first days of a month the partition of last month is needed.
_MISSING_PARTITIONS = """
CREATE FUNCTION saga_engine.missing_partitions(months_ahead integer)
RETURNS TABLE (parent text, month timestamp)
LANGUAGE sql AS $$
    SELECT p.parent, m.month
    FROM unnest(ARRAY['run', 'journal']) WITH ORDINALITY AS p(parent, place),
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
    SELECT count(*) FILTER (WHERE saga_engine.add_month_partition(parent, month))::integer
    FROM saga_engine.missing_partitions(months_ahead)
$$"""

# Whether a run id is a UUIDv7 of about now, so that its month has a partition.
_IS_VALID_RUN_ID = """
CREATE FUNCTION saga_engine.is_valid_run_id(id uuid, age interval DEFAULT interval '7 days',
    lead interval DEFAULT interval '1 day') RETURNS boolean
LANGUAGE sql STABLE STRICT AS $$
    SELECT substr(id::text, 15, 1) = '7'
        AND id >= saga_engine.month_bound((clock_timestamp() AT TIME ZONE 'UTC') - age)
        AND id <= saga_engine.month_bound((clock_timestamp() AT TIME ZONE 'UTC') + lead)
$$"""

# By definition, so that the index finds the few unfinished runs among the many finished ones.
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
            SELECT FROM saga_engine.pending_request AS i
            WHERE i.kind = ''start'' AND i.run_id >= $2 AND i.run_id < $3)',
        'run_' || suffix) INTO needed USING cutoff, low, high;
    RETURN needed;
END $$"""

# The parents first, `run` before `journal`: the order in which workers lock them.
_DETACH_MONTH = """
CREATE FUNCTION saga_engine.detach_month(suffix text, cutoff timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    parent text;
BEGIN
    LOCK TABLE ONLY saga_engine.run IN ACCESS EXCLUSIVE MODE;
    LOCK TABLE ONLY saga_engine.journal IN ACCESS EXCLUSIVE MODE;
    IF NOT EXISTS (
        SELECT FROM pg_class AS c
        WHERE c.oid = to_regclass(format('saga_engine.%I', 'run_' || suffix)) AND c.relispartition
    ) OR saga_engine.month_needed(suffix, cutoff) THEN
        RETURN false;  -- another worker has detached it, or a run has started or finished since
    END IF;
    FOREACH parent IN ARRAY ARRAY['run', 'journal'] LOOP
        EXECUTE format('ALTER TABLE saga_engine.%I DETACH PARTITION saga_engine.%I',
            parent, parent || '_' || suffix);
    END LOOP;
    RETURN true;
END $$"""

_BUSINESS_KEY = """
CREATE TABLE saga_engine.business_key (
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

# Services and operators insert rows through functions, and workers read them. The constraints make
# the columns readable for a worker, also in a row of another role; the body is text that the worker
# parses row by row.
_PENDING_REQUEST = """
CREATE TABLE saga_engine.pending_request (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reply_to text,
    correlation_id text,
    sender text,
    not_before timestamptz,
    definition_id integer,
    version integer,
    fingerprint text,
    saga text,
    kind text NOT NULL,
    awaits_start boolean NOT NULL DEFAULT false,
    audit_id uuid,
    body text NOT NULL,
    key text,
    role text,
    CONSTRAINT pending_request_kind CHECK (kind IN
        ('start', 'cancel', 'resolve', 'reply', 'malformed_reply', 'unroutable', 'wake_up')),
    CONSTRAINT pending_request_start_has_saga CHECK (kind <> 'start' OR saga IS NOT NULL),
    CONSTRAINT pending_request_version CHECK (version > 0),
    CONSTRAINT pending_request_lengths CHECK (octet_length(saga) BETWEEN 1 AND 2000
        AND octet_length(key) BETWEEN 1 AND 2000
        AND octet_length(reply_to) <= 1000 AND octet_length(correlation_id) <= 1000),
    CONSTRAINT pending_request_times CHECK (received_at BETWEEN '2000-01-01Z' AND '3000-01-01Z'
        AND not_before BETWEEN '2000-01-01Z' AND '3000-01-01Z')
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)"""

_PENDING_REQUEST_RUN = (
    "CREATE INDEX pending_request_run ON saga_engine.pending_request (run_id) WHERE kind <> 'start'"
)

# A start that is requested again while it is pending is not stored again.
_PENDING_REQUEST_START_RUN = """
CREATE UNIQUE INDEX pending_request_start_run ON saga_engine.pending_request (run_id)
    WHERE kind = 'start'"""

# An operator action has one request.
_PENDING_REQUEST_AUDIT = """
CREATE UNIQUE INDEX pending_request_audit ON saga_engine.pending_request (audit_id)
    WHERE audit_id IS NOT NULL"""

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
    operator text,
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
    is_engine_token boolean NOT NULL DEFAULT false,
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

# The engine chooses queue and reason, and RabbitMQ limits the sender's name to 255 bytes, so no
# sender can make an index entry too wide.
_DEAD_LETTER_OPEN = """
CREATE INDEX dead_letter_open ON saga_engine.dead_letter (queue, reason, sender, id)
    WHERE state = 'open'"""

# Dead letters beyond the quota of a sender are counted here and not kept. `quota_reached_at` is the
# start of the last transaction that counted the open ones and found the quota used up.
_DEAD_LETTER_DROPPED = """
CREATE TABLE saga_engine.dead_letter_dropped (
    queue text NOT NULL,
    reason text NOT NULL,
    sender text NOT NULL,
    dropped_count bigint NOT NULL,
    last_dropped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    quota_reached_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, reason, sender)
)"""

# Finds resolved dead letters whose retention has passed.
_DEAD_LETTER_RESOLVED = """
CREATE INDEX dead_letter_resolved ON saga_engine.dead_letter (resolved_at)
    WHERE state <> 'open'"""

_AUDIT = """
CREATE TABLE saga_engine.audit (
    id uuid PRIMARY KEY,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    operator text NOT NULL,
    role text,
    action text NOT NULL,
    run_id uuid,
    target text,
    reason text NOT NULL,
    outcome text,
    message text
)"""

_AUDIT_RUN = "CREATE INDEX audit_run ON saga_engine.audit (run_id) WHERE run_id IS NOT NULL"

# Runs whose code ended `crash_count` workers. A retry that was requested after `retry_allowed_at`
# allows another call.
_CRASH_SUSPECT = """
CREATE TABLE saga_engine.crash_suspect (
    run_id uuid PRIMARY KEY,
    last_crash_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    crash_count integer NOT NULL,
    step text NOT NULL,
    direction text NOT NULL,
    function text NOT NULL,
    retry_allowed_at timestamptz
)"""

_AUDIT_RECORDED_AT = "CREATE INDEX audit_recorded_at ON saga_engine.audit (recorded_at)"

_ENGINE_IDENTITY = """
CREATE TABLE saga_engine.engine_identity (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    token_key bytea NOT NULL CHECK (octet_length(token_key) = 32),
    previous_token_key bytea CHECK (octet_length(previous_token_key) = 32),
    token_key_active_from timestamptz NOT NULL DEFAULT '-infinity',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""

_START_GRANT = """
CREATE TABLE saga_engine.start_grant (
    role text NOT NULL,
    saga text NOT NULL,
    PRIMARY KEY (role, saga)
)"""

# The functions below are all that roles other than the worker's may call. Each runs with the rights
# of its owner, uses no search path, checks the lengths of its arguments and records the role of the
# session, which the caller cannot choose.

# The owner of the schema, and members of that role, may start any saga.
_MAY_START = """
CREATE FUNCTION saga_engine.may_start(saga_name text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_has_role(session_user, c.relowner, 'MEMBER') OR EXISTS (
        SELECT FROM saga_engine.start_grant AS g JOIN pg_roles AS r ON r.rolname = g.role
        WHERE pg_has_role(session_user, r.oid, 'MEMBER') AND saga_name LIKE
            replace(regexp_replace(g.saga, '([\\\\%_])', '\\\\\\1', 'g'), '*', '%'))
    FROM pg_class AS c WHERE c.oid = 'saga_engine.pending_request'::regclass
$$"""

# The advisory lock represents the business key while there is no row, as in store/business_keys.py.
# Each statement here sees what was committed before it. The digest of another run's input is
# returned only if it is encrypted.
#
# Workers report which definitions are present, and until when. A start is pinned to the newest
# version that is present, or else to the one that was seen last: after a long outage of the
# database starts are still accepted. The fingerprint of the caller must be the one that a worker
# had last: a start that is pinned to another one would wait without end.
_REQUEST_START = """
CREATE FUNCTION saga_engine.request_start(requested_saga text, requested_version integer,
    requested_run_id uuid, requested_key text, input_digest_plain bytea, digest_to_store bytea,
    request_body text, must_be_known boolean, requested_fingerprint text,
    OUT outcome text, OUT owner_run_id uuid, OUT pinned_version integer,
    OUT same_input boolean, OUT encrypted_digest bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    run_id_ms bigint;
    stored_digest bytea;
    pinned_fingerprint text;
    pinned_is_live boolean;
    requested_is_live boolean;
    checked_at timestamptz := clock_timestamp();
BEGIN
    IF octet_length(requested_fingerprint) BETWEEN 1 AND 100 IS FALSE
            OR octet_length(requested_saga) BETWEEN 1 AND 2000 IS NOT TRUE
            OR octet_length(requested_key) BETWEEN 1 AND 2000 IS FALSE OR requested_version < 1
            OR octet_length(request_body) <= 134217728 IS NOT TRUE
            OR (requested_key IS NOT NULL AND octet_length(digest_to_store)
                BETWEEN 32 AND 1000 IS NOT TRUE)
            OR requested_run_id::text !~ '^.{14}7.{4}[89ab]' IS NOT FALSE THEN
        RAISE 'A start exceeds a limit.' USING ERRCODE = '22023', CONSTRAINT = 'request_start';
    END IF;
    run_id_ms := ('x' || translate(left(requested_run_id::text, 13), '-', ''))::bit(48)::bigint;
    IF abs(run_id_ms - extract(epoch FROM clock_timestamp()) * 1000) > 86400000 THEN
        RAISE 'The time in a run id is more than a day from now.'
            USING ERRCODE = '22023', CONSTRAINT = 'request_start_run_id';
    END IF;
    IF NOT saga_engine.may_start(requested_saga) THEN
        outcome := 'not_granted';
        RETURN;
    END IF;
    SELECT d.version, d.fingerprint, d.present_until > checked_at
        INTO pinned_version, pinned_fingerprint, pinned_is_live
        FROM saga_engine.definition AS d
        WHERE d.name = requested_saga
            AND (requested_version IS NULL OR d.version = requested_version)
        ORDER BY d.present_until > checked_at DESC,
            CASE WHEN d.present_until > checked_at THEN d.version END DESC,
            d.last_seen DESC, d.version DESC, d.id DESC LIMIT 1;
    IF pinned_version IS NULL AND (must_be_known IS NOT FALSE OR requested_version IS NULL
            OR requested_fingerprint IS NULL) THEN
        outcome := 'unknown_saga';
        RETURN;
    END IF;
    IF requested_fingerprint <> pinned_fingerprint THEN
        SELECT d.present_until > checked_at INTO requested_is_live FROM saga_engine.definition AS d
            WHERE d.name = requested_saga AND d.version = pinned_version
                AND d.fingerprint = requested_fingerprint;
        IF requested_is_live IS NULL OR (pinned_is_live AND NOT requested_is_live) THEN
            outcome := 'definition_mismatch';
            RETURN;
        END IF;
    END IF;
    pinned_version := coalesce(pinned_version, requested_version);
    pinned_fingerprint := coalesce(requested_fingerprint, pinned_fingerprint);
    IF requested_key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(
            hashtextextended(format('saga-engine key %s/%s', requested_saga, requested_key), 0));
        SELECT k.run_id, k.input_digest INTO owner_run_id, stored_digest
            FROM saga_engine.business_key AS k
            WHERE k.saga = requested_saga AND k.key = requested_key;
        IF NOT FOUND THEN
            INSERT INTO saga_engine.business_key AS k (saga, key, run_id, input_digest)
                VALUES (requested_saga, requested_key, requested_run_id, digest_to_store)
                ON CONFLICT ON CONSTRAINT business_key_pkey DO NOTHING
                RETURNING k.run_id INTO owner_run_id;
            IF NOT FOUND THEN
                SELECT k.run_id, k.input_digest INTO owner_run_id, stored_digest
                    FROM saga_engine.business_key AS k
                    WHERE k.saga = requested_saga AND k.key = requested_key;
                IF NOT FOUND THEN
                    RAISE 'A key was released while it was looked up.' USING ERRCODE = '40001';
                END IF;
            END IF;
        END IF;
        IF owner_run_id <> requested_run_id THEN
            outcome := 'key_taken';
            same_input := CASE WHEN octet_length(stored_digest) = 32
                THEN stored_digest = input_digest_plain END;
            encrypted_digest := CASE WHEN octet_length(stored_digest) <> 32 THEN stored_digest END;
            RETURN;
        END IF;
    END IF;
    INSERT INTO saga_engine.pending_request (run_id, version, fingerprint, saga, kind, key, body,
        role)
        VALUES (requested_run_id, pinned_version, pinned_fingerprint, requested_saga, 'start',
            requested_key, request_body, session_user);
    outcome := 'recorded';
    owner_run_id := requested_run_id;
END $$"""

_RECORD_ACTIONS = """
CREATE FUNCTION saga_engine.record_actions(ids uuid[], operators text[], actions text[],
    run_ids uuid[], targets text[], reasons text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF cardinality(ids) <= 1000 IS NOT TRUE OR EXISTS (
            SELECT FROM unnest(ids, operators, actions, run_ids, targets, reasons)
                AS u(id, operator, action, run_id, target, reason)
            WHERE u.id IS NULL OR octet_length(u.operator) BETWEEN 1 AND 2000 IS NOT TRUE
                OR u.action ~ '^[a-z_-]{1,40}$' IS NOT TRUE
                OR octet_length(u.target) <= 2000 IS FALSE
                OR octet_length(u.reason) <= 2000 IS NOT TRUE) THEN
        RAISE 'An action exceeds a limit.' USING ERRCODE = '22023', CONSTRAINT = 'record_actions';
    END IF;
    INSERT INTO saga_engine.audit (id, operator, role, action, run_id, target, reason)
    SELECT u.id, u.operator, session_user, u.action, u.run_id, u.target, u.reason
    FROM unnest(ids, operators, actions, run_ids, targets, reasons)
        AS u(id, operator, action, run_id, target, reason)
    ON CONFLICT ON CONSTRAINT audit_pkey DO NOTHING;
END $$"""

# A request belongs to an action that the same role has recorded for the same run. It has the same
# operator, reason and resolution, and is the only request of the action. A body is unchecked text,
# so a failing cast is a refusal. A worker may decide the action at the same time, so its outcome is
# checked last: the unique index has waited for the transaction of that worker.
_ADD_OPERATOR_REQUESTS = """
CREATE FUNCTION saga_engine.add_operator_requests(request_kind text, allowed_actions text[],
    run_ids uuid[],
    audit_ids uuid[], bodies text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    matches_audit boolean := false;
    added integer;
BEGIN
    IF cardinality(run_ids) <= 1000 IS NOT TRUE OR EXISTS (
            SELECT FROM unnest(run_ids, audit_ids, bodies) AS u(run_id, audit_id, body)
            WHERE u.run_id IS NULL OR u.audit_id IS NULL
                OR octet_length(u.body) <= 4194304 IS NOT TRUE) THEN
        RAISE 'Requests exceed a limit: 1,000 in one call, 4 MiB each.'
            USING ERRCODE = '22023', CONSTRAINT = 'add_operator_requests';
    END IF;
    BEGIN
        matches_audit := NOT EXISTS (
            SELECT FROM unnest(run_ids, audit_ids, bodies) AS u(run_id, audit_id, body),
                LATERAL (SELECT u.body::jsonb AS request OFFSET 0) AS b
            WHERE NOT EXISTS (
                SELECT FROM saga_engine.audit AS a
                WHERE a.id = u.audit_id AND a.role = session_user AND a.run_id = u.run_id
                    AND a.action = ANY (allowed_actions) AND a.operator = b.request ->> 'operator'
                    AND a.reason = b.request ->> 'reason'
                    AND (request_kind <> 'resolve' OR a.action = b.request ->> 'resolution')));
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        NULL;  -- not JSON, or JSON that PostgreSQL cannot read
    END;
    IF NOT matches_audit THEN
        RAISE 'The action of a request is not recorded, or differs from the request.'
            USING ERRCODE = '22023', CONSTRAINT = 'add_operator_requests_audit';
    END IF;
    INSERT INTO saga_engine.pending_request (run_id, definition_id, kind, audit_id, body, role)
    SELECT u.run_id,
        (SELECT r.definition_id FROM saga_engine.run AS r WHERE r.run_id = u.run_id),
        request_kind, u.audit_id, u.body, session_user
    FROM unnest(run_ids, audit_ids, bodies) WITH ORDINALITY AS u(run_id, audit_id, body, place)
    ORDER BY u.place
    ON CONFLICT (audit_id) WHERE audit_id IS NOT NULL DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    IF added < cardinality(run_ids) OR EXISTS (
            SELECT FROM saga_engine.audit AS a
            WHERE a.id = ANY (audit_ids) AND a.outcome IS NOT NULL) THEN
        RAISE 'An action has a request, or an outcome.'
            USING ERRCODE = '22023', CONSTRAINT = 'add_operator_requests_unique';
    END IF;
END $$"""

_REQUEST_CANCEL = """
CREATE FUNCTION saga_engine.request_cancel(run_ids uuid[], audit_ids uuid[], bodies text[])
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT saga_engine.add_operator_requests('cancel', ARRAY['cancel'], run_ids, audit_ids, bodies)
$$"""

_REQUEST_RESOLVE = """
CREATE FUNCTION saga_engine.request_resolve(run_ids uuid[], audit_ids uuid[], bodies text[])
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT saga_engine.add_operator_requests('resolve',
        ARRAY['retry', 'skip', 'complete', 'reject', 'abandon'], run_ids, audit_ids, bodies)
$$"""

# Deletes a pending start of a definition that no worker has had in ten minutes: no worker can start
# the run, and none decides a cancel. The run has not started, so nothing has to be compensated. If
# a worker takes the start at the same time, it has locked the row, which is then deleted.
_CANCEL_START = """
CREATE FUNCTION saga_engine.cancel_start(cancelled_run_id uuid, cancel_audit_id uuid)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    start_saga text;
    start_key text;
BEGIN
    PERFORM FROM saga_engine.audit AS a
        WHERE a.id = cancel_audit_id AND a.role = session_user AND a.run_id = cancelled_run_id
            AND a.action = 'cancel' AND a.outcome IS NULL FOR UPDATE;
    IF NOT FOUND OR EXISTS (
            SELECT FROM saga_engine.pending_request AS i WHERE i.audit_id = cancel_audit_id) THEN
        RAISE 'The action of a cancel is not recorded, has an outcome, or has a request.'
            USING ERRCODE = '22023', CONSTRAINT = 'cancel_start_audit';
    END IF;
    -- Only starts that a role has recorded: a message may be delivered again, and start the run.
    DELETE FROM saga_engine.pending_request AS i
        WHERE i.run_id = cancelled_run_id AND i.kind = 'start' AND i.role IS NOT NULL
            AND NOT EXISTS (
                SELECT FROM saga_engine.definition AS d
            WHERE d.name = i.saga AND (i.version IS NULL OR d.version = i.version)
                AND (i.fingerprint IS NULL OR d.fingerprint = i.fingerprint)
                AND greatest(d.present_until, d.last_seen + interval '10 minutes')
                    > clock_timestamp())
        RETURNING i.saga, i.key INTO start_saga, start_key;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM saga_engine.business_key AS k
        WHERE k.saga = start_saga AND k.key = start_key AND k.run_id = cancelled_run_id
            AND NOT EXISTS (SELECT FROM saga_engine.run AS r WHERE r.run_id = cancelled_run_id);
    UPDATE saga_engine.pending_request SET awaits_start = false
        WHERE run_id = cancelled_run_id AND kind <> 'start' AND awaits_start;
    UPDATE saga_engine.audit SET outcome = 'accepted', message =
            'The run did not begin: no worker had its definition in the last 10 minutes.'
            || ' Its key is free again.'
        WHERE id = cancel_audit_id;
    RETURN true;
END $$"""

# Signs a token as saga_engine.protocol.token does: the first 128 bits of HMAC-SHA-256 (RFC 2104) in
# base64url. The key has 32 bytes, half a block; the rest of the block is zero.
_SIGN_TOKEN = """
CREATE FUNCTION saga_engine.sign_token(token_key bytea, unsigned_token text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    inner_pad bytea := decode(repeat('36', 64), 'hex');
    outer_pad bytea := decode(repeat('5c', 64), 'hex');
    message bytea := convert_to('saga-engine correlation id 1', 'UTF8') || '\\x00'::bytea
        || convert_to(unsigned_token, 'UTF8');
BEGIN
    FOR byte_index IN 0..31 LOOP
        inner_pad := set_byte(inner_pad, byte_index, get_byte(token_key, byte_index) # 54);
        outer_pad := set_byte(outer_pad, byte_index, get_byte(token_key, byte_index) # 92);
    END LOOP;
    RETURN rtrim(translate(encode(substr(
        sha256(outer_pad || sha256(inner_pad || message)), 1, 16), 'base64'), '+/', '-_'), '=')
        || '.' || unsigned_token;
END $$"""

# Redriving needs the correlation id of the command. Of a token of this engine only the readable
# part is stored; it is signed again here, with the current key.
_LOCK_DEAD_LETTERS = """
CREATE FUNCTION saga_engine.lock_dead_letters(ids bigint[]) RETURNS SETOF saga_engine.dead_letter
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dead_letter_row saga_engine.dead_letter;
    token_key bytea := (SELECT CASE WHEN e.token_key_active_from <= clock_timestamp()
        OR e.previous_token_key IS NULL THEN e.token_key ELSE e.previous_token_key END
        FROM saga_engine.engine_identity AS e);
BEGIN
    IF cardinality(ids) <= 1000 IS NOT TRUE THEN
        RAISE 'At most 1,000 dead letters in one call.'
            USING ERRCODE = '22023', CONSTRAINT = 'lock_dead_letters';
    END IF;
    FOR dead_letter_row IN SELECT * FROM saga_engine.dead_letter AS d
            WHERE d.id = ANY (ids) AND d.state = 'open' ORDER BY d.id FOR UPDATE LOOP
        IF dead_letter_row.is_engine_token THEN
            dead_letter_row.correlation_id := saga_engine.sign_token(token_key,
                dead_letter_row.correlation_id);
        END IF;
        RETURN NEXT dead_letter_row;
    END LOOP;
END $$"""

_RESOLVE_DEAD_LETTERS = """
CREATE FUNCTION saga_engine.resolve_dead_letters(ids bigint[], new_state text, operator_name text,
    resolution_reason text) RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF cardinality(ids) <= 1000 IS NOT TRUE
            OR new_state IN ('redriven', 'discarded') IS NOT TRUE
            OR octet_length(operator_name) BETWEEN 1 AND 2000 IS NOT TRUE
            OR octet_length(resolution_reason) <= 2000 IS NOT TRUE THEN
        RAISE 'The arguments for dead letters exceed a limit.'
            USING ERRCODE = '22023', CONSTRAINT = 'resolve_dead_letters';
    END IF;
    -- In one order, so that two calls do not deadlock.
    PERFORM FROM saga_engine.dead_letter AS d
        WHERE d.id = ANY (ids) AND d.state = 'open' ORDER BY d.id FOR UPDATE;
    RETURN QUERY WITH resolved AS (
        UPDATE saga_engine.dead_letter AS d SET state = new_state,
            resolved_at = clock_timestamp(), resolved_by = operator_name,
            resolved_reason = resolution_reason
        WHERE d.id = ANY (ids) AND d.state = 'open' RETURNING d.id, d.run_id
    ), recorded AS (
        INSERT INTO saga_engine.audit (id, operator, role, action, run_id, target, reason, outcome,
            message)
        SELECT gen_random_uuid(), operator_name, session_user,
            CASE new_state WHEN 'redriven' THEN 'redrive' ELSE 'discard' END,
            s.run_id, 'dead letter ' || s.id, resolution_reason, 'accepted', 'Done.'
        FROM resolved AS s ORDER BY s.id
    )
    SELECT s.id FROM resolved AS s ORDER BY s.id;
END $$"""

_PURGE_DEAD_LETTERS = """
CREATE FUNCTION saga_engine.purge_dead_letters(ids bigint[], operator_name text,
    resolution_reason text)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    deleted_count bigint;
BEGIN
    IF cardinality(ids) <= 1000 IS NOT TRUE
            OR octet_length(operator_name) BETWEEN 1 AND 2000 IS NOT TRUE
            OR octet_length(resolution_reason) <= 2000 IS NOT TRUE THEN
        RAISE 'The arguments for dead letters exceed a limit.'
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
        INSERT INTO saga_engine.audit (id, operator, role, action, target, reason, outcome, message)
        SELECT gen_random_uuid(), operator_name, session_user, 'purge',
            format('%s dead letters of %s (%s), ids %s to %s',
                g.number, g.queue, g.reason, g.low, g.high),
            resolution_reason, 'accepted', 'Done.'
        FROM groups AS g
    )
    SELECT coalesce(sum(g.number), 0) INTO deleted_count FROM groups AS g;
    RETURN deleted_count::integer;
END $$"""

# A worker may delete rows after their retention, and none younger than a day. An action without an
# outcome is kept. Rows that another transaction has locked are left for the next call.
_PURGE_EXPIRED = """
CREATE FUNCTION saga_engine.purge_expired(dead_letter_days integer, audit_days integer,
    row_limit integer)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dead_letters_deleted integer := 0;
    audit_deleted integer := 0;
BEGIN
    IF dead_letter_days >= 1 THEN
        DELETE FROM saga_engine.dead_letter AS d WHERE d.id = ANY (ARRAY(
            SELECT o.id FROM saga_engine.dead_letter AS o
            WHERE o.state <> 'open' AND o.resolved_at
                < (SELECT clock_timestamp()) - make_interval(days => dead_letter_days)
            ORDER BY o.resolved_at LIMIT least(row_limit, 1000) FOR UPDATE SKIP LOCKED));
        GET DIAGNOSTICS dead_letters_deleted = ROW_COUNT;
    END IF;
    IF audit_days >= 1 THEN
        DELETE FROM saga_engine.audit AS a WHERE a.id = ANY (ARRAY(
            SELECT o.id FROM saga_engine.audit AS o
            WHERE o.recorded_at < (SELECT clock_timestamp()) - make_interval(days => audit_days)
                AND o.outcome IS NOT NULL
            ORDER BY o.recorded_at LIMIT least(row_limit, 1000) FOR UPDATE SKIP LOCKED));
        GET DIAGNOSTICS audit_deleted = ROW_COUNT;
    END IF;
    RETURN dead_letters_deleted + audit_deleted;
END $$"""

_REVOKE_FROM_PUBLIC = "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA saga_engine FROM PUBLIC"

_STATEMENTS = (
    *(_SCHEMA_REVISION, _RECORD_REVISION),
    *(_DEFINITION, _RUN, _RUN_WAKE, _RUN_STATUS, _RUN_FINISHED),
    *(_JOURNAL, _JOURNAL_POSITION, _JOURNAL_ANNOUNCE),
    _JOURNAL_ANNOUNCE_ALWAYS,
    *(_ADD_PARTITION, _MONTH_BOUND, _ADD_MONTH_PARTITION, _MISSING_PARTITIONS),
    *(_ADD_PARTITIONS, _IS_VALID_RUN_ID),
    "SELECT saga_engine.add_partition('run', 'default', 'DEFAULT')",
    "SELECT saga_engine.add_partition('journal', 'default', 'DEFAULT')",
    "SELECT saga_engine.add_partitions(12)",
    *(_BUSINESS_KEY, _OUTBOX),
    *(_PENDING_REQUEST, _PENDING_REQUEST_RUN, _PENDING_REQUEST_START_RUN, _PENDING_REQUEST_AUDIT),
    *(_INCIDENT, _INCIDENT_OPEN),
    *(_MONTH_NEEDED, _DETACH_MONTH),
    *(_DEAD_LETTER, _DEAD_LETTER_OPEN, _DEAD_LETTER_RESOLVED, _DEAD_LETTER_DROPPED),
    *(_AUDIT, _AUDIT_RUN, _AUDIT_RECORDED_AT, _CRASH_SUSPECT, _ENGINE_IDENTITY, _START_GRANT),
    *(_MAY_START, _REQUEST_START, _CANCEL_START),
    *(_RECORD_ACTIONS, _ADD_OPERATOR_REQUESTS, _REQUEST_CANCEL, _REQUEST_RESOLVE),
    *(_SIGN_TOKEN, _LOCK_DEAD_LETTERS, _RESOLVE_DEAD_LETTERS, _PURGE_DEAD_LETTERS, _PURGE_EXPIRED),
    _REVOKE_FROM_PUBLIC,
)


def upgrade() -> None:
    """Create the schema."""
    for statement in _STATEMENTS:
        op.execute(statement)
