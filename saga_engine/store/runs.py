"""
The rows of runs: locked, read, inserted and saved, many at a time.

Only the transaction that has locked a run's row changes it, and only at the revision that it has
read: no decision is saved over another one. Rows are locked in the order of their ids, so that two
transactions that need the same runs wait for each other and do not deadlock.

`wake_at` is lazy: it moves to an earlier time, or when it has passed, and otherwise stays. So an
ordinary step changes no indexed column and is a HOT update. A wake-up that comes too early computes
the next one.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from saga_engine.decider.run import Run
from saga_engine.errors import StoreReadTooLarge, StoreUnavailable
from saga_engine.postgres.statement import Columns, Statement, Transaction, text
from saga_engine.store.json_column import dumps
from saga_engine.store.snapshot import restore_run, to_snapshot
from saga_engine.vocabulary import Status

UNLIMITED_BYTES = 2**62
"""A limit that no sum of inputs and states reaches."""


FIRST_REVISION = 1
"""The revision of a run that is inserted."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """
    A run, the definition it is pinned to, and when its next timer is due.

    `revision` is the number of rows of its journal: each transaction that decides about the run
    appends one. The run is saved only while it still has the revision that was read.
    """

    run: Run
    definition_id: int
    wake_at: datetime | None
    revision: int


class RunRow(NamedTuple):
    """The columns of a run, and of its definition, in the order in which they are read."""

    definition_id: int
    wake_at: datetime | None
    state: str | None
    input: str | None
    status: str
    run_id: str
    saga: str
    version: int
    fingerprint: str
    key: str | None
    started_at: datetime
    deadline: datetime | None
    revision: int
    finished_at: datetime | None


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
    arguments = {**run_id_arguments(run_ids), "max_bytes": max_bytes}
    return to_stored_runs(await tx.execute(_LOCK, arguments))


async def lock_skip_locked(
    tx: Transaction, run_ids: Collection[str], *, max_bytes: int = UNLIMITED_BYTES
) -> dict[str, StoredRun]:
    """As `lock`, but skipping the runs that another transaction has locked. This never waits."""
    if not run_ids:
        return {}
    arguments = {**run_id_arguments(run_ids), "max_bytes": max_bytes}
    return to_stored_runs(await tx.execute(_LOCK_SKIP_LOCKED, arguments))


async def insert(tx: Transaction, new: Sequence[StoredRun]) -> set[str]:
    """
    Insert runs, and return the ids of those that were inserted.

    A run that exists, or whose start is still pending, is left out.
    """
    if not new:
        return set()
    return set((await tx.execute(_INSERT, new_run_columns(new))).scalars())


async def save(
    tx: Transaction, changed: Sequence[StoredRun], *, appended: Collection[str] = ()
) -> None:
    """
    Save runs that this transaction has locked.

    Args:
        changed: the runs, each with the revision that was read.
        appended: the ids of the runs to whose journal this transaction appends a row. They get the
            next revision; the others keep theirs.

    Raises:
        StoreUnavailable: another transaction has changed or dropped a run, so it was not locked.
            Read the runs and decide again.
    """
    if not changed:
        return
    columns = changed_run_columns(changed, appended)
    run_ids = columns["run_id"]
    result = await tx.execute(_SAVE, {**columns, **_run_id_bounds(run_ids[0], run_ids[-1])})
    if result.rowcount != len(changed):
        raise StoreUnavailable("A run was changed by another transaction. Nothing was written.")


async def read_unlocked(
    tx: Transaction, run_ids: Collection[str], *, max_bytes: int = UNLIMITED_BYTES
) -> dict[str, StoredRun]:
    """As `lock`, but without locking them."""
    if not run_ids:
        return {}
    arguments = {**run_id_arguments(run_ids), "max_bytes": max_bytes}
    return to_stored_runs(await tx.execute(_READ_UNLOCKED, arguments))


def _run_id(row: StoredRun) -> str:
    return row.run.run_id


def run_id_arguments(run_ids: Collection[str]) -> dict[str, Any]:
    """Make the arguments of a statement about some runs."""
    ordered = sorted(run_ids)
    return {"run_ids": ordered, **_run_id_bounds(ordered[0], ordered[-1])}


def _run_id_bounds(first: str, last: str) -> dict[str, str]:
    """Bounds of the ids: an array that is a parameter prunes no partition, and bounds do."""
    return {"first": first, "last": last}


def new_run_columns(new: Sequence[StoredRun]) -> Columns:
    """Write new runs as rows, in the order of their ids."""
    rows = sorted(new, key=_run_id)
    return {
        **_changed_columns(rows),
        "revision": [row.revision for row in rows],
        "definition_id": [row.definition_id for row in rows],
        "key": [row.run.key for row in rows],
        "input": [dumps(row.run.input) for row in rows],
        "started_at": [row.run.started_at for row in rows],
        "deadline": [row.run.deadline for row in rows],
    }


def changed_run_columns(changed: Sequence[StoredRun], appended: Collection[str] = ()) -> Columns:
    """Write what changes in runs as rows, in the order of their ids; see `save`."""
    rows = sorted(changed, key=_run_id)
    return {
        **_changed_columns(rows),
        "read_revision": [row.revision for row in rows],
        "revision": [row.revision + (row.run.run_id in appended) for row in rows],
    }


def _changed_columns(rows: Sequence[StoredRun]) -> dict[str, list[Any]]:
    return {
        "run_id": [row.run.run_id for row in rows],
        "status": [row.run.status.value for row in rows],
        "state": [dumps(to_snapshot(row.run)) for row in rows],
        "finished_at": [row.run.finished_at for row in rows],
        "wake_at": [row.wake_at for row in rows],
    }


def to_stored_runs(rows: Iterable[RunRow]) -> dict[str, StoredRun]:
    """Make runs, by run id, of rows that `within_bytes` has read."""
    found = {}
    for (
        definition_id,
        wake_at,
        state,
        input_json,
        status,
        run_id,
        saga,
        version,
        fingerprint,
        key,
        started_at,
        deadline,
        revision,
        finished_at,
    ) in rows:
        if state is None or input_json is None:
            raise StoreReadTooLarge("The runs of this batch hold more than max_batch_bytes.")
        identity = Run(
            run_id=run_id,
            saga=saga,
            version=version,
            fingerprint=fingerprint,
            key=key,
            input=orjson.loads(input_json),
            started_at=started_at,
            deadline=deadline,
            status=Status(status),
            finished_at=finished_at,
        )
        run = restore_run(identity, orjson.loads(state))
        found[run_id] = StoredRun(run, definition_id, wake_at, revision)
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
    FROM unnest(CAST(:run_id AS uuid[]), CAST(:started_at AS timestamptz[]),
        CAST(:finished_at AS timestamptz[]), CAST(:deadline AS timestamptz[]),
        CAST(:wake_at AS timestamptz[]), CAST(:definition_id AS integer[]),
        CAST(:revision AS integer[]), CAST(:status AS text[]), CAST(:key AS text[]),
        CAST(:input AS text[]), CAST(:state AS text[]))
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
        unnest(CAST(:run_id AS uuid[]), CAST(:status AS text[]),
            CAST(:read_revision AS integer[]), CAST(:revision AS integer[]),
            CAST(:state AS text[]), CAST(:finished_at AS timestamptz[]),
            CAST(:wake_at AS timestamptz[])),
        generate_series(1, cardinality(CAST(:run_id AS uuid[]))))
        AS u(run_id, status, read_revision, revision, state, finished_at, wake_at, ordinal)
    WHERE r.run_id = u.run_id AND r.revision = u.read_revision
        AND r.run_id = ANY (CAST(:run_id AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)"""
)
