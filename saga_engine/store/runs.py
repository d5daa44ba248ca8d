"""
The rows of runs: locked, read, made and changed, many at a time.

A run is only ever changed by the transaction that holds its row. Rows are locked in id order, so
that two transactions that want the same runs wait for each other instead of deadlocking. `wake_at`
is lazy: it moves only to an earlier time, or when it is spent, so that an ordinary step changes no
indexed column and stays a HOT update; a wake-up that comes too early computes the next one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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
"""More bytes than any runs have."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run, the definition it is pinned to, and when time alone will next change it."""

    run: Run
    definition_id: int
    wake_at: datetime | None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """
    How a run stands, for a client; `failure` says why it did not complete.

    `open_incidents` is in how many places it waits for a person, `incident` the first of them.
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
    """Tell the time: the database's clock is the clock."""
    now: datetime = (await tx.execute(_DATABASE_NOW)).scalar_one()
    return now


async def lock(
    tx: Transaction, run_ids: Collection[str], *, max_bytes: int = UNLIMITED_BYTES
) -> dict[str, StoredRun]:
    """
    Lock and read the runs that exist, waiting for whoever has them.

    Args:
        most: bytes of inputs and states after which no further run is read.

    Raises:
        StoreTooMuch: they are more.
    """
    if not run_ids:
        return {}
    return _stored_runs(
        await tx.execute(_LOCK, {**_run_id_arguments(run_ids), "max_bytes": max_bytes})
    )


async def lock_skip_locked(
    tx: Transaction, run_ids: Collection[str], *, max_bytes: int = UNLIMITED_BYTES
) -> dict[str, StoredRun]:
    """As `lock`, but passing over the runs that others have. This never waits."""
    if not run_ids:
        return {}
    return _stored_runs(
        await tx.execute(_LOCK_SKIP_LOCKED, {**_run_id_arguments(run_ids), "max_bytes": max_bytes})
    )


async def lock_due(
    tx: Transaction,
    definition_ids: Sequence[int],
    limit: int,
    *,
    max_bytes: int = UNLIMITED_BYTES,
    excluding: Collection[str] = (),
) -> dict[str, StoredRun]:
    """
    Lock and read up to *limit* runs whose `wake_at` has come, passing over those that others have.

    After *most* bytes of inputs and states no further run is read; the rest stay due. The runs
    *without* are passed over.

    To be called after everything that waits: the runs come in the order of their times, and nobody
    may wait for a row while holding one with a higher id. This never waits.
    """
    arguments = {"definition_ids": list(definition_ids), "limit": limit, "max_bytes": max_bytes}
    rows = await tx.execute(_LOCK_DUE, {**arguments, "excluding": sorted(excluding)})
    return _stored_runs(row for row in rows if row[2] is not None)


async def due_within(
    tx: Transaction, horizons: Mapping[int, timedelta], count_limit: int
) -> dict[str, int]:
    """
    Count, by saga, the runs that time alone will change soon.

    Args:
        horizons: how soon, by definition; runs of others, which nobody here moves, do not count.
        most: where the count of a definition ends; more are not told from as many.
    """
    arguments: dict[str, Any] = {
        "definition_ids": list(horizons),
        "horizons": list(horizons.values()),
        "count_limit": count_limit,
    }
    rows = await tx.execute(_DUE_WITHIN, arguments)
    return dict(rows.all())


async def due_run_ids(tx: Transaction, definition_ids: Sequence[int], limit: int) -> list[str]:
    """Name up to *limit* runs whose `wake_at` has come, without reading what they hold."""
    arguments = {"definition_ids": list(definition_ids), "limit": limit, "excluding": []}
    return list((await tx.execute(_DUE_RUN_IDS, arguments)).scalars())


async def defer_wake(tx: Transaction, run_id: str, delay: timedelta) -> None:
    """Let a run that cannot be woken sleep for *pause*, so that others have their turn."""
    await tx.execute(_DEFER_WAKE, {"run_id": run_id, "delay": delay})


async def insert(tx: Transaction, new: Sequence[StoredRun]) -> set[str]:
    """Insert runs; the ids of those that were not there yet, and whose start does not wait."""
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
    Write runs that this transaction has locked.

    Raises:
        StoreUnavailable: a row is gone or newer than ours, so it was not locked; decide again.
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
    return _stored_runs(
        await tx.execute(_READ_UNLOCKED, {**_run_id_arguments(run_ids), "max_bytes": max_bytes})
    )


async def read_statuses(tx: Transaction, run_ids: Collection[str]) -> dict[str, RunStatus]:
    """Read how runs stand, without locking them; those that do not exist are left out."""
    if not run_ids:
        return {}
    return {
        run_id: RunStatus(
            *(Status(status), saga, version, key),
            orjson.loads(result),
            failure_from_cause(orjson.loads(cause)),
            *_open_incidents(orjson.loads(incidents)),
        )
        for run_id, status, saga, version, key, result, cause, incidents in await tx.execute(
            _READ_STATUSES, _run_id_arguments(run_ids)
        )
    }


def _open_incidents(incidents: Sequence[Mapping[str, Any]]) -> tuple[int, OpenIncident | None]:
    """How many incidents are open, and the first of them."""
    first = min(incidents, key=lambda each: int(each["number"]), default=None)
    return len(incidents), None if first is None else from_data(OpenIncident, first)


def failure_from_cause(cause: Any) -> Failure | None:
    """Why a run turned back, from the `cause` in its state."""
    if cause is None:
        return None
    return from_data(CompensationCause, cause).as_failure


def _run_id(row: StoredRun) -> str:
    return row.run.run_id


def _run_id_arguments(run_ids: Collection[str]) -> dict[str, Any]:
    ordered = sorted(run_ids)
    return {"run_ids": ordered, **_run_id_bounds(ordered[0], ordered[-1])}


def _run_id_bounds(first: str, last: str) -> dict[str, str]:
    """Without them every partition is searched: an array that is a parameter prunes none."""
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


def _stored_runs(rows: Iterable[Any]) -> dict[str, StoredRun]:
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

_RUN_COLUMNS = """
    r.definition_id, r.wake_at, r.state::text AS state, r.input::text AS input, r.status,
    r.run_id::text AS run_id, d.name, d.version, d.fingerprint, r.key, r.started_at, r.deadline,
    r.revision, r.finished_at"""

_RUN_COLUMNS_FROM = f"""{_RUN_COLUMNS}
FROM saga_engine.run AS r JOIN saga_engine.definition AS d ON d.id = r.definition_id"""

_RUN_ID_IN = """
    WHERE r.run_id = ANY (CAST(:run_ids AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)"""

# The first run is always read; of one that comes after so many bytes, only that it is there. The
# rows come in the order of the inner query, which locks them.
_WITHIN_BYTES_SQL = """
    SELECT definition_id, wake_at, CASE WHEN before < :max_bytes THEN state END,
        CASE WHEN before < :max_bytes THEN input END, status,
        run_id, name, version, fingerprint, key, started_at, deadline, revision, finished_at
    FROM (
        SELECT *, coalesce(sum(octet_length(state) + octet_length(input)) OVER (
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
        FROM ({}) AS found) AS counted"""


def _within_bytes(query: str) -> Statement:
    return text(_WITHIN_BYTES_SQL.format(query))


_READ_UNLOCKED = _within_bytes(f"SELECT {_RUN_COLUMNS_FROM} {_RUN_ID_IN}")

_LOCK = _within_bytes(f"SELECT {_RUN_COLUMNS_FROM} {_RUN_ID_IN} ORDER BY r.run_id FOR UPDATE OF r")

_LOCK_SKIP_LOCKED = _within_bytes(
    f"SELECT {_RUN_COLUMNS_FROM} {_RUN_ID_IN} ORDER BY r.run_id FOR UPDATE OF r SKIP LOCKED"
)

# Of each definition by itself, the earliest: due runs of other definitions are not read.
# The clock stands in a subquery because a volatile function cannot be looked up in an index.
_EARLIEST_DUE = """
    SELECT d.id, t.run_id, t.wake_at
    FROM unnest(CAST(:definition_ids AS integer[])) AS d(id),
        LATERAL (
            SELECT r.run_id, r.wake_at FROM saga_engine.run AS r
            WHERE r.definition_id = d.id AND r.wake_at <= (SELECT clock_timestamp())
                AND NOT r.run_id = ANY (CAST(:excluding AS uuid[]))
            ORDER BY r.wake_at LIMIT :limit) AS t
    ORDER BY t.wake_at LIMIT :limit"""

# First without a lock, to learn how many of each definition are among the earliest; then so many
# of each are locked, past those that others have.
_LOCK_DUE = _within_bytes(
    f"""
    WITH share AS MATERIALIZED (
        SELECT e.id, count(*) AS due_runs FROM ({_EARLIEST_DUE}) AS e GROUP BY e.id)
    SELECT {_RUN_COLUMNS}
    FROM share AS s,
        LATERAL (
            SELECT r.* FROM saga_engine.run AS r
            WHERE r.definition_id = s.id AND r.wake_at <= (SELECT clock_timestamp())
                AND NOT r.run_id = ANY (CAST(:excluding AS uuid[]))
            ORDER BY r.wake_at LIMIT s.due_runs FOR UPDATE OF r SKIP LOCKED) AS r
        JOIN saga_engine.definition AS d ON d.id = r.definition_id
    ORDER BY r.wake_at"""  # noqa: S608 - a constant
)

_DUE_WITHIN = text(
    """
    SELECT d.name, sum((
        SELECT count(*) FROM (
            SELECT FROM saga_engine.run AS r
            WHERE r.definition_id = h.id
                AND r.wake_at <= (SELECT clock_timestamp()) + h.horizon
            LIMIT :count_limit) AS soon
        ))::integer
    FROM unnest(CAST(:definition_ids AS integer[]), CAST(:horizons AS interval[])) AS h(id, horizon)
    JOIN saga_engine.definition AS d ON d.id = h.id
    GROUP BY d.name"""
)

_DUE_RUN_IDS = text(f"SELECT e.run_id::text FROM ({_EARLIEST_DUE}) AS e ORDER BY e.wake_at")  # noqa: S608

_DEFER_WAKE = text(
    """
    UPDATE saga_engine.run SET wake_at = clock_timestamp() + CAST(:delay AS interval)
    WHERE run_id = CAST(:run_id AS uuid)"""
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
        SELECT FROM saga_engine.pending_request AS i WHERE i.run_id = u.run_id AND i.kind = 'start')
    ON CONFLICT (run_id) DO NOTHING
    RETURNING run_id::text"""
)

# The planner takes an unnested parameter for ten rows and would compare each with each; the series
# makes it expect a thousand, and hash them. The array is named twice, so that whatever plan it made
# while the table was empty reads only these rows when it is full.
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
