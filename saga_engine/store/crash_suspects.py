"""
Crash suspects: runs whose mapping function or validator ended a worker.

Such a call did not return within `mapping_hard_timeout`. The watchdog of the worker records the run
before it ends the process. Workers read this table at their start, every few seconds, and when a
message is delivered again, not for each batch. A run has one row, and each crash costs a worker at
least `mapping_hard_timeout` seconds, so the table is small.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from saga_engine.postgres.statement import Transaction, text
from saga_engine.store.pending_requests import (
    PendingRequest,
    ReadLimits,
    RequestKind,
    to_pending_requests,
)
from saga_engine.store.request_queue import RETURNING_REQUEST, unblock_requests

SUSPECTS_MAX = 1000
"""Rows that a worker keeps in memory at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashSuspect:
    """
    The call that did not return, as in `payload.guard.Call`, and how many workers it has ended.

    `step` and `direction` are empty for the validator of a run's input.
    """

    run_id: str
    step: str
    direction: str
    function: str
    crash_count: int = 0


async def record_crash(tx: Transaction, suspect: CrashSuspect) -> int:
    """
    Record that a call ended a worker, and return how many it has ended.

    Another call of the same run starts again at 1.
    """
    names = ("run_id", "step", "direction", "function")
    arguments = {name: getattr(suspect, name) for name in names}
    crash_count: int = (await tx.execute(_RECORD_CRASH, arguments)).scalar_one()
    return crash_count


async def read_all(tx: Transaction) -> dict[str, CrashSuspect]:
    """Read at most `SUSPECTS_MAX` suspects, by run id."""
    return _by_run(await tx.execute(_READ_ALL, {"count_limit": SUSPECTS_MAX}))


async def read_with_work(tx: Transaction) -> dict[str, CrashSuspect]:
    """Read the suspects that have a pending request or a due timer, by run id."""
    return _by_run(await tx.execute(_READ_WITH_WORK, {"count_limit": SUSPECTS_MAX}))


async def read_among(tx: Transaction, run_ids: Collection[str]) -> dict[str, CrashSuspect]:
    """Read those of *run_ids* that are suspects."""
    if not run_ids:
        return {}
    return _by_run(await tx.execute(_READ_AMONG, {"run_ids": sorted(run_ids)}))


async def try_lock(tx: Transaction, run_id: str) -> bool:
    """
    Reserve a run until the end of the transaction, unless another transaction has.

    The row of the suspect is not locked: a watchdog writes it while the call has not returned.
    """
    is_locked: bool = (await tx.execute(_TRY_LOCK, {"run_id": run_id})).scalar_one()
    return is_locked


async def clear(tx: Transaction, run_ids: Collection[str]) -> None:
    """Delete suspects whose call has returned."""
    if run_ids:
        await tx.execute(_CLEAR, {"run_ids": sorted(run_ids)})


async def allow_retry(tx: Transaction, run_id: str) -> None:
    """
    Allow the call once more when an operator has requested a `retry`, once for each request.

    Commit this before the request is taken, so that it is not lost when the call ends a worker
    again.
    """
    await tx.execute(_ALLOW_RETRY, {"run_id": run_id})


async def delete_expired(tx: Transaction) -> None:
    """Delete suspects of more than a day ago whose run is finished or never started."""
    await tx.execute(_DELETE_EXPIRED)


async def take_oldest_request(
    tx: Transaction, run_id: str, definition_ids: Sequence[int], body_limits: ReadLimits
) -> list[PendingRequest]:
    """
    Take the oldest pending request of *run_id*, its start before all others.

    The requests that wait for the start can be taken from now on.

    Args:
        definition_ids: the definitions that this worker has; a request for another definition is
            not taken.
    """
    arguments = {"run_id": run_id, "definition_ids": list(definition_ids), **asdict(body_limits)}
    taken = to_pending_requests(await tx.execute(_TAKE_OLDEST_REQUEST, arguments))
    await unblock_requests(
        tx, [request.run_id for request in taken if request.kind == RequestKind.START]
    )
    return taken


def _by_run(rows: Iterable[Any]) -> dict[str, CrashSuspect]:
    return {
        run_id: CrashSuspect(
            run_id=run_id, step=step, direction=direction, function=function, crash_count=number
        )
        for run_id, step, direction, function, number in rows
    }


_RECORD_CRASH = text(
    """
    INSERT INTO saga_engine.crash_suspect AS s (run_id, step, direction, function, crash_count)
    VALUES (CAST(:run_id AS uuid), :step, :direction, :function, 1)
    ON CONFLICT (run_id) DO UPDATE SET step = excluded.step, direction = excluded.direction,
        function = excluded.function, last_crash_at = clock_timestamp(),
        crash_count = CASE WHEN (s.step, s.direction, s.function)
            = (excluded.step, excluded.direction, excluded.function) THEN s.crash_count + 1
                ELSE 1 END
    RETURNING crash_count"""
)

_COLUMNS = "run_id::text, step, direction, function, crash_count FROM saga_engine.crash_suspect"

_READ_ALL = text(f"SELECT {_COLUMNS} ORDER BY last_crash_at LIMIT :count_limit")

_READ_WITH_WORK = text(
    f"""
    SELECT {_COLUMNS} AS s
    WHERE EXISTS (SELECT FROM saga_engine.pending_request AS i
            WHERE i.run_id = s.run_id AND i.kind = 'start')
        OR EXISTS (SELECT FROM saga_engine.pending_request AS i
            WHERE i.run_id = s.run_id AND i.kind <> 'start')
        OR EXISTS (SELECT FROM saga_engine.run AS r
            WHERE r.run_id = s.run_id AND r.wake_at <= (SELECT clock_timestamp()))
    ORDER BY last_crash_at LIMIT :count_limit"""  # noqa: S608 - a constant
)

_READ_AMONG = text(f"SELECT {_COLUMNS} WHERE run_id = ANY (CAST(:run_ids AS uuid[]))")

_TRY_LOCK = text(
    """
    SELECT pg_try_advisory_xact_lock(
        hashtextextended('saga-engine crash suspect ' || CAST(:run_id AS text), 0))"""
)

_CLEAR = text("DELETE FROM saga_engine.crash_suspect WHERE run_id = ANY (CAST(:run_ids AS uuid[]))")

_ALLOW_RETRY = text(
    """
    UPDATE saga_engine.crash_suspect AS s SET crash_count = 0,
        retry_allowed_at = retry_request.recorded_at
    FROM (
        SELECT max(a.recorded_at) AS recorded_at
        FROM saga_engine.pending_request AS i JOIN saga_engine.audit AS a ON a.id = i.audit_id
        WHERE i.run_id = CAST(:run_id AS uuid) AND i.kind = 'resolve' AND a.action = 'retry'
    ) AS retry_request
    WHERE s.run_id = CAST(:run_id AS uuid)
        AND retry_request.recorded_at > coalesce(s.retry_allowed_at, '-infinity')"""
)

_DELETE_EXPIRED = text(
    """
    DELETE FROM saga_engine.crash_suspect AS s
    WHERE s.last_crash_at < clock_timestamp() - interval '1 day' AND NOT EXISTS (
        SELECT FROM saga_engine.run AS r WHERE r.run_id = s.run_id AND r.finished_at IS NULL)"""
)

_TAKE_OLDEST_REQUEST = text(
    """
    DELETE FROM saga_engine.pending_request WHERE id = ANY (ARRAY(
        SELECT i.id FROM saga_engine.pending_request AS i
        WHERE i.run_id = CAST(:run_id AS uuid) AND CASE
            WHEN i.kind = 'start' THEN EXISTS (
                SELECT FROM saga_engine.definition AS d
                WHERE d.id = ANY (CAST(:definition_ids AS integer[]))
                    AND d.name = i.saga AND coalesce(i.version, d.version) = d.version
                    AND coalesce(i.fingerprint, d.fingerprint) = d.fingerprint)
            ELSE EXISTS (
                SELECT FROM saga_engine.run AS r WHERE r.run_id = i.run_id
                    AND r.definition_id = ANY (CAST(:definition_ids AS integer[])))
            END
        ORDER BY i.kind <> 'start', i.id LIMIT 1 FOR UPDATE OF i SKIP LOCKED))"""  # noqa: S608 - a constant follows
    + RETURNING_REQUEST
)
