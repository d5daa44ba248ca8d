"""
The rows of runs, read many at a time; `batch_append` writes them together with the journal.

No row is locked to be decided on: the journal is the fence between workers.

`wake_at` is lazy: it moves to an earlier time, or when it has passed, and otherwise stays. So an
ordinary step changes no indexed column and is a HOT update. A wake-up that comes too early computes
the next one.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from saga_engine.decider.run import Run
from saga_engine.errors import StoreReadTooLarge
from saga_engine.postgres.statement import Columns, Statement, Transaction, text
from saga_engine.store.json_column import dumps
from saga_engine.store.snapshot import restore_run, to_snapshot
from saga_engine.vocabulary import Status

UNLIMITED_BYTES = 2**62
"""A limit that no sum of inputs and states reaches."""

_TOO_LARGE = "The runs of this batch hold more than max_batch_bytes."

FIRST_REVISION = 1
"""The revision of a run that is inserted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """
    A run, the definition it is pinned to, and when its next timer is due.

    `revision` is the number of rows of its journal: each batch that decides about the run appends
    one. `size` is about how many bytes of JSON the run has.
    """

    run: Run
    definition_id: int
    wake_at: datetime | None
    revision: int
    size: int = field(default=0, compare=False)


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


async def read(
    tx: Transaction, run_ids: Collection[str], *, max_bytes: int = UNLIMITED_BYTES
) -> dict[str, StoredRun]:
    """
    Read the runs that exist, without locking them.

    Args:
        max_bytes: how many bytes of inputs and states are read at most, not counting the last run.
            Of 0 or less nothing is read.

    Raises:
        StoreReadTooLarge: the runs hold more.
    """
    if not run_ids:
        return {}
    arguments = {**run_id_arguments(run_ids), "max_bytes": max_bytes}
    return to_stored_runs(await tx.execute(_READ, arguments))


def bytes_within(stored_runs: Iterable[StoredRun], max_bytes: int) -> int:
    """
    Return how many bytes runs have that need not be read, under the limit of `read`.

    Raises:
        StoreReadTooLarge: they have more.
    """
    size = 0
    for each in stored_runs:
        if size >= max_bytes:
            raise StoreReadTooLarge(_TOO_LARGE)
        size += each.size
    return size


async def lockable(tx: Transaction, run_ids: Collection[str]) -> set[str]:
    """
    Find which of these runs exist and are not locked by another transaction.

    It locks them: end the transaction before another statement is executed.
    """
    if not run_ids:
        return set()
    return set((await tx.execute(_LOCK_FREE, run_id_arguments(run_ids))).scalars())


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
        **changed_run_columns(rows),
        "definition_id": [row.definition_id for row in rows],
        "key": [row.run.key for row in rows],
        "input": [dumps(row.run.input) for row in rows],
        "started_at": [row.run.started_at for row in rows],
        "deadline": [row.run.deadline for row in rows],
    }


def changed_run_columns(changed: Sequence[StoredRun]) -> dict[str, list[Any]]:
    """Write what changes in runs as rows, in the order of their ids."""
    rows = sorted(changed, key=_run_id)
    return {
        "run_id": [row.run.run_id for row in rows],
        "revision": [row.revision for row in rows],
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
            raise StoreReadTooLarge(_TOO_LARGE)
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
        size = len(state) + len(input_json)
        found[run_id] = StoredRun(
            run=run, definition_id=definition_id, wake_at=wake_at, revision=revision, size=size
        )
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


_READ = within_bytes(f"SELECT {_RUN_COLUMNS_FROM} {_RUN_ID_IN}")

_LOCK_FREE = text(
    f"SELECT r.run_id::text FROM saga_engine.run AS r {_RUN_ID_IN} FOR UPDATE SKIP LOCKED"  # noqa: S608
)
