"""
The rows of runs: locked, read, inserted and saved, many at a time.

Only the transaction that has locked a run's row changes it. Rows are locked in the order of their
ids, so that two transactions that need the same runs wait for each other and do not deadlock.

`wake_at` is lazy: it moves to an earlier time, or when it has passed, and otherwise stays. So an
ordinary step changes no indexed column and is a HOT update. A wake-up that comes too early computes
the next one.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from saga_engine.decider.run import CompensationCause, Run
from saga_engine.errors import StoreReadTooLarge, StoreUnavailable
from saga_engine.payload.serialization import from_data
from saga_engine.postgres.statement import Statement, Transaction, text
from saga_engine.protocol.open_incident import OpenIncident
from saga_engine.store.json_column import dumps
from saga_engine.store.snapshot import restore_run, to_snapshot
from saga_engine.vocabulary import Failure, Json, Status

UNLIMITED_BYTES = 2**62
"""A limit that no sum of inputs and states reaches."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run, the definition it is pinned to, and when its next timer is due."""

    run: Run
    definition_id: int
    wake_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """
    The status of a run, for a client; `failure` says why it did not complete.

    `open_incidents` is how many incidents are open, `incident` the first of them.
    """

    status: Status
    saga: str
    version: int
    key: str | None
    result: Json = None
    failure: Failure | None = None
    open_incidents: int = 0
    incident: OpenIncident | None = None


async def database_now(tx: Transaction) -> datetime:
    """Read the database's clock, which is the clock of every worker."""
    now: datetime = (await tx.execute(_DATABASE_NOW)).scalar_one()
    return now


async def lock(
    tx: Transaction, run_ids: Collection[str], *, max_bytes: int = UNLIMITED_BYTES
) -> dict[str, StoredRun]:
    """
    Lock and read the runs that exist, waiting for transactions that have locked them.

    Args:
        max_bytes: how many bytes of inputs and states are read at most, not counting the first
            run.

    Raises:
        StoreReadTooLarge: the runs hold more.
    """
    if not run_ids:
        return {}
    arguments = {**_run_id_arguments(run_ids), "max_bytes": max_bytes}
    return to_stored_runs(await tx.execute(_LOCK, arguments))


async def lock_skip_locked(
    tx: Transaction, run_ids: Collection[str], *, max_bytes: int = UNLIMITED_BYTES
) -> dict[str, StoredRun]:
    """As `lock`, but skipping the runs that another transaction has locked. This never waits."""
    if not run_ids:
        return {}
    arguments = {**_run_id_arguments(run_ids), "max_bytes": max_bytes}
    return to_stored_runs(await tx.execute(_LOCK_SKIP_LOCKED, arguments))


async def insert(tx: Transaction, new: Sequence[StoredRun]) -> set[str]:
    """
    Insert runs, and return the ids of those that were inserted.

    A run that exists, or whose start is still pending, is left out.
    """
    if not new:
        return set()
    rows = sorted(new, key=_run_id)
    arguments = {
        **_changed_arguments(rows),
        "definition_ids": [row.definition_id for row in rows],
        "keys": [row.run.key for row in rows],
        "inputs": [dumps(row.run.input) for row in rows],
        "started": [row.run.started_at for row in rows],
        "deadlines": [row.run.deadline for row in rows],
    }
    return set((await tx.execute(_INSERT, arguments)).scalars())


async def save(tx: Transaction, changed: Sequence[StoredRun]) -> None:
    """
    Save runs that this transaction has locked.

    Raises:
        StoreUnavailable: another transaction has changed or dropped a run, so it was not locked.
            Read the runs and decide again.
    """
    if not changed:
        return
    rows = sorted(changed, key=_run_id)
    arguments = {
        **_changed_arguments(rows),
        **_run_id_bounds(rows[0].run.run_id, rows[-1].run.run_id),
    }
    result = await tx.execute(_SAVE, arguments)
    if result.rowcount != len(rows):
        raise StoreUnavailable("A run was changed by another transaction. Nothing was written.")


async def read_unlocked(
    tx: Transaction, run_ids: Collection[str], *, max_bytes: int = UNLIMITED_BYTES
) -> dict[str, StoredRun]:
    """As `lock`, but without locking them."""
    if not run_ids:
        return {}
    arguments = {**_run_id_arguments(run_ids), "max_bytes": max_bytes}
    return to_stored_runs(await tx.execute(_READ_UNLOCKED, arguments))


async def read_statuses(tx: Transaction, run_ids: Collection[str]) -> dict[str, RunStatus]:
    """Read the statuses of runs without locking them; runs that do not exist are left out."""
    if not run_ids:
        return {}
    rows = await tx.execute(_READ_STATUSES, _run_id_arguments(run_ids))
    return {run_id: _run_status(columns) for run_id, *columns in rows}


def _run_status(columns: Sequence[Any]) -> RunStatus:
    status, saga, version, key, result, cause, incidents = columns
    open_incidents = orjson.loads(incidents)
    first = min(open_incidents, key=lambda each: int(each["number"]), default=None)
    return RunStatus(
        status=Status(status),
        saga=saga,
        version=version,
        key=key,
        result=orjson.loads(result),
        failure=failure_from_cause(orjson.loads(cause)),
        open_incidents=len(open_incidents),
        incident=None if first is None else from_data(OpenIncident, first),
    )


def failure_from_cause(cause: Any) -> Failure | None:
    """Return why a run compensates, from `compensation_cause` in its state."""
    if cause is None:
        return None
    return from_data(CompensationCause, cause).as_failure


def _run_id(row: StoredRun) -> str:
    return row.run.run_id


def _run_id_arguments(run_ids: Collection[str]) -> dict[str, Any]:
    ordered = sorted(run_ids)
    return {"run_ids": ordered, **_run_id_bounds(ordered[0], ordered[-1])}


def _run_id_bounds(first: str, last: str) -> dict[str, str]:
    """Bounds of the ids: an array that is a parameter prunes no partition, and bounds do."""
    return {"first": first, "last": last}


def _changed_arguments(rows: Sequence[StoredRun]) -> dict[str, list[Any]]:
    return {
        "run_ids": [row.run.run_id for row in rows],
        "statuses": [row.run.status.value for row in rows],
        "revisions": [row.run.revision for row in rows],
        "states": [dumps(to_snapshot(row.run)) for row in rows],
        "finished": [row.run.finished_at for row in rows],
        "wake": [row.wake_at for row in rows],
    }


def to_stored_runs(rows: Iterable[Any]) -> dict[str, StoredRun]:
    """Make runs, by run id, of rows that `within_bytes` has read."""
    found = {}
    for definition_id, wake_at, state, input_json, status, *columns in rows:
        if state is None:
            raise StoreReadTooLarge("The runs of this batch hold more than max_batch_bytes.")
        run_id, saga, version, fingerprint, key, started_at, deadline, revision, finished_at = (
            columns
        )
        identity = Run(
            run_id=run_id,
            saga=saga,
            version=version,
            fingerprint=fingerprint,
            key=key,
            input=orjson.loads(input_json),
            started_at=started_at,
            deadline=deadline,
            revision=revision,
            status=Status(status),
            finished_at=finished_at,
        )
        run = restore_run(identity, orjson.loads(state))
        found[run_id] = StoredRun(run, definition_id, wake_at)
    return found


_DATABASE_NOW = text("SELECT clock_timestamp()")

RUN_COLUMNS = """
    r.definition_id, r.wake_at, r.state::text AS state, r.input::text AS input, r.status,
    r.run_id::text AS run_id, d.name, d.version, d.fingerprint, r.key, r.started_at, r.deadline,
    r.revision, r.finished_at"""

_RUN_COLUMNS_FROM = f"""{RUN_COLUMNS}
FROM saga_engine.run AS r JOIN saga_engine.definition AS d ON d.id = r.definition_id"""

_RUN_ID_IN = """
    WHERE r.run_id = ANY (CAST(:run_ids AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)"""

# The first run is always read. Of a run beyond the limit only its existence is read, and its state
# is null. The rows come in the order of the inner query, which locks them.
_WITHIN_BYTES_SQL = """
    SELECT definition_id, wake_at, CASE WHEN before < :max_bytes THEN state END,
        CASE WHEN before < :max_bytes THEN input END, status,
        run_id, name, version, fingerprint, key, started_at, deadline, revision, finished_at
    FROM (
        SELECT *, coalesce(sum(octet_length(state) + octet_length(input)) OVER (
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
        FROM ({}) AS found) AS counted"""


def within_bytes(query: str) -> Statement:
    """Make a statement of a query for `RUN_COLUMNS` that reads at most `:max_bytes`."""
    return text(_WITHIN_BYTES_SQL.format(query))


_READ_UNLOCKED = within_bytes(f"SELECT {_RUN_COLUMNS_FROM} {_RUN_ID_IN}")

_LOCK = within_bytes(f"SELECT {_RUN_COLUMNS_FROM} {_RUN_ID_IN} ORDER BY r.run_id FOR UPDATE OF r")

_LOCK_SKIP_LOCKED = within_bytes(
    f"SELECT {_RUN_COLUMNS_FROM} {_RUN_ID_IN} ORDER BY r.run_id FOR UPDATE OF r SKIP LOCKED"
)

_INSERT = text(
    """
    INSERT INTO saga_engine.run (run_id, started_at, finished_at, deadline, wake_at,
        definition_id, revision, status, key, input, state)
    SELECT u.run_id, u.started_at, u.finished_at, u.deadline, u.wake_at,
        u.definition_id, u.revision, u.status, u.key, u.input::jsonb, u.state::jsonb
    FROM unnest(CAST(:run_ids AS uuid[]), CAST(:started AS timestamptz[]),
        CAST(:finished AS timestamptz[]), CAST(:deadlines AS timestamptz[]),
        CAST(:wake AS timestamptz[]), CAST(:definition_ids AS integer[]),
        CAST(:revisions AS integer[]), CAST(:statuses AS text[]), CAST(:keys AS text[]),
        CAST(:inputs AS text[]), CAST(:states AS text[]))
        AS u(run_id, started_at, finished_at, deadline, wake_at,
            definition_id, revision, status, key, input, state)
    WHERE NOT EXISTS (
        SELECT FROM saga_engine.pending_request AS p WHERE p.run_id = u.run_id AND p.kind = 'start')
    ON CONFLICT (run_id) DO NOTHING
    RETURNING run_id::text"""
)

# The planner expects ten rows of an unnested parameter and would use a nested loop; the series
# makes it expect a thousand, and hash them. The condition on the array is repeated, so that a plan
# made while the table was empty reads only these rows when it is full.
_SAVE = text(
    """
    UPDATE saga_engine.run AS r
    SET status = u.status, revision = u.revision, state = u.state::jsonb,
        finished_at = u.finished_at, updated_at = clock_timestamp(),
        wake_at = CASE
            WHEN u.finished_at IS NOT NULL THEN NULL
            WHEN r.wake_at <= clock_timestamp() OR r.wake_at IS NULL OR u.wake_at < r.wake_at
                THEN u.wake_at
            ELSE r.wake_at END
    FROM ROWS FROM (
        unnest(CAST(:run_ids AS uuid[]), CAST(:statuses AS text[]),
            CAST(:revisions AS integer[]), CAST(:states AS text[]),
            CAST(:finished AS timestamptz[]), CAST(:wake AS timestamptz[])),
        generate_series(1, cardinality(CAST(:run_ids AS uuid[]))))
        AS u(run_id, status, revision, state, finished_at, wake_at, ordinal)
    WHERE r.run_id = u.run_id AND r.revision <= u.revision
        AND r.run_id = ANY (CAST(:run_ids AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)"""
)

_READ_STATUSES = text(
    """
    SELECT r.run_id::text, r.status, d.name, d.version, r.key,
        coalesce(r.state -> 'result', 'null')::text,
        coalesce(r.state -> 'compensation_cause', 'null')::text,
        CASE WHEN r.state -> 'incidents' IS NULL THEN '[]' ELSE (
            SELECT coalesce(jsonb_agg(jsonb_build_object('number', i.value -> 'number',
                'step', i.value -> 'step', 'direction', i.value -> 'direction',
                'cause', i.value -> 'cause', 'since', i.value -> 'opened_at')), '[]')::text
            FROM jsonb_each(r.state -> 'incidents') AS i) END
    FROM saga_engine.run AS r JOIN saga_engine.definition AS d ON d.id = r.definition_id
    WHERE r.run_id = ANY (CAST(:run_ids AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)"""
)
