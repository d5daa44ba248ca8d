"""
The runs, read many at a time from their journals; `batch_append` writes rows and journal together.

A run is its journal: to read it is to apply its events. Its row has what runs are searched by, how
it ended, and at times a snapshot, so that of a long journal only the rows after it are read. An
ordinary step changes nothing in the row. No row is locked to be decided on: the journal is the
fence between workers.

`wake_at` is lazy: it moves to an earlier time, or when it has passed, and otherwise stays. A
wake-up that comes too early computes the next one.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from saga_engine.decider.events import Event
from saga_engine.decider.evolve import replay
from saga_engine.decider.run import Run
from saga_engine.errors import StoreReadTooLarge
from saga_engine.payload.serialization import to_data
from saga_engine.postgres.statement import Columns, Transaction, text
from saga_engine.store.byte_limits import UNLIMITED_BYTES
from saga_engine.store.event_data import deserialize_event
from saga_engine.store.json_column import dumps
from saga_engine.store.snapshot import restore_run, to_snapshot

_TOO_LARGE = "The runs of this batch hold more than max_batch_bytes."

FIRST_REVISION = 1
"""The revision of a run that is inserted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """
    A run, the definition it is pinned to, and when its next timer is due.

    `revision` is the number of rows of its journal: each batch that decides about the run appends
    one. `snapshot_revision` is that of the stored snapshot; 0: there is none. `size` is about how
    many bytes of JSON the run has, `journal_size` how many of them are rows after the snapshot.
    """

    run: Run
    definition_id: int
    wake_at: datetime | None
    revision: int
    snapshot_revision: int = 0
    size: int = field(default=0, compare=False)
    journal_size: int = field(default=0, compare=False)


class RunRow(NamedTuple):
    """
    The columns of a run, of its definition and its journal, in the order in which they are read.

    `snapshot` is `null` without one, and `journal` a list of the rows after it, each a list of
    events. Both are None beyond the limit of bytes. `row_count` counts the rows of the journal from
    the one of the snapshot on.
    """

    definition_id: int
    wake_at: datetime | None
    snapshot: str | None
    snapshot_revision: int
    journal: str | None
    revision: int
    row_count: int
    run_id: str
    saga: str
    version: int
    fingerprint: str
    key: str | None
    started_at: datetime
    deadline: datetime | None


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
        max_bytes: how many bytes of journals and snapshots are read at most, not counting the last
            run. Of 0 or less nothing is read.

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


async def read_readable(
    tx: Transaction, run_ids: Collection[str], *, max_bytes: int
) -> AsyncIterator[Collection[StoredRun]]:
    """
    Read the runs that exist, in parts; a damaged one is left out.

    Args:
        max_bytes: how many bytes of journals and snapshots are read at once, not counting the last
            run; at least 1.
    """
    parts = [sorted(run_ids)] if run_ids else []
    while parts:
        part = parts.pop()
        arguments = {**run_id_arguments(part), "max_bytes": max_bytes}
        rows = (await tx.execute(_READ, arguments)).all()
        try:
            found = to_stored_runs(rows)
        except Exception:  # noqa: BLE001 - too large together, or one is damaged
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]] if middle else []
        else:
            yield found.values()


async def locked(tx: Transaction, run_ids: Collection[str]) -> set[str]:
    """
    Find which of these runs another transaction has locked.

    It locks the others: execute it on its own, so that they are free again when it ends.
    """
    if not run_ids:
        return set()
    return set((await tx.execute(_LOCKED, run_id_arguments(run_ids))).scalars())


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
        **_common_columns(rows),
        "definition_id": [row.definition_id for row in rows],
        "key": [row.run.key for row in rows],
        "started_at": [row.run.started_at for row in rows],
        "deadline": [row.run.deadline for row in rows],
    }


def changed_run_columns(changed: Sequence[StoredRun]) -> dict[str, list[Any]]:
    """
    Write what may change in the rows of runs, in the order of their ids.

    The snapshot of a run is written if it is that of its revision.
    """
    rows = sorted(changed, key=_run_id)
    return {
        **_common_columns(rows),
        "snapshot": [
            dumps(to_snapshot(row.run)) if row.snapshot_revision == row.revision else None
            for row in rows
        ],
        "snapshot_revision": [row.snapshot_revision for row in rows],
    }


def _common_columns(rows: Sequence[StoredRun]) -> dict[str, list[Any]]:
    return {
        "run_id": [row.run.run_id for row in rows],
        "status": [row.run.status.value for row in rows],
        "finished_at": [row.run.finished_at for row in rows],
        "wake_at": [row.wake_at for row in rows],
        "result": [None if row.run.result is None else dumps(row.run.result) for row in rows],
        "cause": [
            None if cause is None else dumps(to_data(cause))
            for cause in (row.run.compensation_cause for row in rows)
        ],
    }


def to_stored_runs(rows: Iterable[RunRow]) -> dict[str, StoredRun]:
    """
    Make runs, by run id, of rows that `_READ` has read.

    Raises:
        StoreReadTooLarge: of one only the existence was read.
        ValueError: the journal of one lacks a row. No batch could append the next one.
    """
    return {each.run.run_id: each for each in map(_to_stored_run, rows)}


def _to_stored_run(row: Iterable[Any]) -> StoredRun:
    definition_id, wake_at, snapshot, snapshot_revision, journal, revision, *others = row
    row_count, *identity = others
    if snapshot is None or journal is None:
        raise StoreReadTooLarge(_TOO_LARGE)
    if row_count != revision - max(snapshot_revision, FIRST_REVISION) + 1:
        raise ValueError(f"The journal of run {identity[0]} lacks a row.")
    before = _restored_run(orjson.loads(snapshot), identity) if snapshot_revision else None
    run = replay(_events(journal), before)
    assert run is not None, "a run has a journal or a snapshot"
    return StoredRun(
        run=run,
        definition_id=definition_id,
        wake_at=wake_at,
        revision=revision,
        snapshot_revision=snapshot_revision,
        size=len(snapshot) + len(journal),
        journal_size=len(journal),
    )


def _restored_run(snapshot: dict[str, Any], identity: Sequence[Any]) -> Run:
    run_id, saga, version, fingerprint, key, started_at, deadline = identity
    without_state = Run(
        run_id=run_id,
        saga=saga,
        version=version,
        fingerprint=fingerprint,
        key=key,
        input=None,
        started_at=started_at,
        deadline=deadline,
    )
    return restore_run(without_state, snapshot)


def _events(journal: str) -> Iterator[Event]:
    for row in orjson.loads(journal):
        for event in row:
            yield deserialize_event(event["type"], event["data"])


_DATABASE_NOW = text("SELECT clock_timestamp()")

# The bounds are repeated for the journal: they prune its partitions too.
_RUN_COLUMNS = """
    r.definition_id, r.wake_at, coalesce(r.snapshot::text, 'null') AS snapshot, r.snapshot_revision,
    coalesce(j.rows, '[]') AS journal, coalesce(j.revision, r.snapshot_revision) AS revision,
    j.row_count, r.run_id::text AS run_id, d.name, d.version, d.fingerprint, r.key, r.started_at,
    r.deadline
FROM saga_engine.run AS r JOIN saga_engine.definition AS d ON d.id = r.definition_id,
    LATERAL (
        SELECT '[' || string_agg(t.events::text, ',' ORDER BY t.revision)
                FILTER (WHERE t.revision > r.snapshot_revision) || ']' AS rows,
            max(t.revision) AS revision, count(*) AS row_count
        FROM saga_engine.journal AS t
        WHERE t.run_id = r.run_id AND t.revision >= r.snapshot_revision
            AND t.run_id >= CAST(:first AS uuid) AND t.run_id <= CAST(:last AS uuid)) AS j"""

_RUN_ID_IN = """
    WHERE r.run_id = ANY (CAST(:run_ids AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)"""

# A run is read while those before it are below the limit; of the others only the existence.
_READ = text(
    f"""
    SELECT definition_id, wake_at, CASE WHEN before < :max_bytes THEN snapshot END,
        snapshot_revision, CASE WHEN before < :max_bytes THEN journal END, revision, row_count,
        run_id, name, version, fingerprint, key, started_at, deadline
    FROM (
        SELECT *, coalesce(sum(octet_length(snapshot) + octet_length(journal)) OVER (
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
        FROM (SELECT {_RUN_COLUMNS} {_RUN_ID_IN}) AS found) AS counted"""  # noqa: S608 - constants
)

_LOCKED = text(
    f"""
    WITH free AS MATERIALIZED (
        SELECT r.run_id FROM saga_engine.run AS r {_RUN_ID_IN} FOR NO KEY UPDATE SKIP LOCKED)
    SELECT r.run_id::text FROM saga_engine.run AS r {_RUN_ID_IN}
        AND r.run_id <> ALL (ARRAY(SELECT f.run_id FROM free AS f))"""  # noqa: S608 - constants
)
