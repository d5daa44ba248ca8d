"""What the gauges report: how many runs, requests, commands and messages are unfinished or open."""

from collections.abc import Mapping
from dataclasses import dataclass

from saga_engine.postgres.statement import Transaction, text
from saga_engine.store import outbox, stranded_starts
from saga_engine.store.bounded_count import GROUPS_MAX
from saga_engine.vocabulary import IncidentCause, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogCounts:
    """
    The values of the gauges. Ages are in seconds. Counting of each number ends at a limit.

    Args:
        runs: unfinished runs, by saga and status.
        oldest_run_age: the age of the oldest unfinished run, by saga.
        open_incidents: by saga, cause and step.
        dead_letters: open ones, by queue and reason.
        starts_waiting: pending starts, by saga.
        starts_stranded: those that are pinned to a definition that no worker has, by saga.
        timers_pending: runs with a timer.
        timer_overdue: how long the earliest timer is overdue.
        pending_requests: all pending requests, with the starts.
        awaiting_definition: pending requests for a run whose definition the worker did not have.
        runs_unpartitioned: runs in the default partition.
    """

    runs: Mapping[tuple[str, Status], int]
    oldest_run_age: Mapping[str, float]
    open_incidents: Mapping[tuple[str, IncidentCause, str], int]
    dead_letters: Mapping[tuple[str, str], int]
    starts_waiting: Mapping[str, int]
    starts_stranded: Mapping[str, int]
    outbox_pending: int
    outbox_oldest_age: float
    timers_pending: int
    timer_overdue: float
    pending_requests: int
    pending_requests_oldest_age: float
    awaiting_definition: int
    runs_unpartitioned: int


async def count_backlog(tx: Transaction, count_limit: int = 10_000) -> BacklogCounts:
    """
    Count what is unfinished, open or pending; finished runs are not read.

    Runs are counted after the rest: from then on no partition can be added or dropped until *tx*
    ends.

    Args:
        count_limit: where the counting of each number ends.
    """
    arguments = {"count_limit": count_limit}
    dead_letters = (await tx.execute(_DEAD_LETTERS, arguments)).all()
    starts_waiting: dict[str, int] = dict((await tx.execute(_STARTS_WAITING, arguments)).all())
    starts_stranded = await stranded_starts.count(tx, count_limit)
    outbox_backlog = await outbox.backlog(tx, count_limit)
    requests = (await tx.execute(_PENDING_REQUESTS, arguments)).one()
    run_counts, oldest_run_age = await _count_unfinished(tx, count_limit)
    runs_unpartitioned = (await tx.execute(_UNPARTITIONED, arguments)).scalar_one()
    open_incidents = await tx.execute(_OPEN_INCIDENTS, arguments)
    timers_pending, timer_overdue = (await tx.execute(_TIMERS, arguments)).one()
    pending_requests, pending_requests_oldest_age, awaiting_definition = requests
    return BacklogCounts(
        runs=run_counts,
        oldest_run_age=oldest_run_age,
        open_incidents={
            (saga, IncidentCause(cause), step): number
            for saga, cause, step, number in open_incidents
        },
        dead_letters={(queue, reason): number for queue, reason, number in dead_letters},
        starts_waiting=starts_waiting,
        starts_stranded=starts_stranded,
        outbox_pending=outbox_backlog.pending,
        outbox_oldest_age=outbox_backlog.oldest_age,
        timers_pending=timers_pending,
        timer_overdue=timer_overdue,
        pending_requests=pending_requests,
        pending_requests_oldest_age=pending_requests_oldest_age,
        awaiting_definition=awaiting_definition,
        runs_unpartitioned=runs_unpartitioned,
    )


async def _count_unfinished(
    tx: Transaction, count_limit: int
) -> tuple[dict[tuple[str, Status], int], dict[str, float]]:
    """Count unfinished runs by saga and status, and find the age of the oldest by saga."""
    ages: dict[str, float] = {}
    run_counts: dict[tuple[str, Status], int] = {}
    for saga, status, number, age in await tx.execute(_UNFINISHED, {"count_limit": count_limit}):
        ages[saga] = max(age, ages.get(saga, 0.0))
        key = saga, Status(status)
        run_counts[key] = min(count_limit, number + run_counts.get(key, 0))
    return run_counts, ages


# Each count ends at a limit, and each oldest row is found by an index.
_UNFINISHED = text(
    """
    SELECT d.name, s.status, u.number::integer,
        extract(epoch FROM clock_timestamp() - u.oldest)::float8
    FROM saga_engine.definition AS d,
        unnest(ARRAY['running', 'compensating']) AS s(status),
        LATERAL (
            SELECT count(*) AS number, min(limited.started_at) AS oldest FROM (
                SELECT r.started_at FROM saga_engine.run AS r
                WHERE r.definition_id = d.id AND r.status = s.status
                ORDER BY r.run_id LIMIT :count_limit) AS limited) AS u
    WHERE u.number > 0"""
)

_OPEN_INCIDENTS = text(
    """
    SELECT d.name, i.cause, i.step, count(*)
    FROM (
        SELECT run_id, cause, step FROM saga_engine.incident
        WHERE resolved_at IS NULL ORDER BY opened_at LIMIT :count_limit) AS i
    JOIN saga_engine.run AS r ON r.run_id = i.run_id
    JOIN saga_engine.definition AS d ON d.id = r.definition_id
    GROUP BY d.name, i.cause, i.step"""
)

# From one queue and reason to the next by the index, without reading the rows between.
_DEAD_LETTERS = text(
    f"""
    WITH RECURSIVE dead_letter_groups AS (
        (SELECT queue, reason FROM saga_engine.dead_letter
            WHERE state = 'open' ORDER BY queue, reason LIMIT 1)
        UNION ALL
        SELECT n.queue, n.reason FROM dead_letter_groups AS k, LATERAL (
            SELECT l.queue, l.reason FROM saga_engine.dead_letter AS l
            WHERE l.state = 'open' AND (l.queue, l.reason) > (k.queue, k.reason)
            ORDER BY l.queue, l.reason LIMIT 1) AS n
    )
    SELECT k.queue, k.reason, (SELECT count(*) FROM (
        SELECT FROM saga_engine.dead_letter AS l
        WHERE l.state = 'open' AND l.queue = k.queue AND l.reason = k.reason
        LIMIT :count_limit) AS limited)
    FROM (SELECT queue, reason FROM dead_letter_groups LIMIT {GROUPS_MAX}) AS k"""  # noqa: S608 - a constant
)

_TIMERS = text(
    """
    SELECT least(CAST(:count_limit AS bigint), coalesce(sum(u.number), 0)::bigint), greatest(
        coalesce(extract(epoch FROM clock_timestamp() - min(u.earliest)), 0), 0)::float8
    FROM saga_engine.definition AS d, LATERAL (
        SELECT count(*) AS number, min(limited.wake_at) AS earliest FROM (
            SELECT r.wake_at FROM saga_engine.run AS r
            WHERE r.definition_id = d.id AND r.wake_at IS NOT NULL
            ORDER BY r.wake_at LIMIT :count_limit) AS limited) AS u"""
)

_PENDING_REQUESTS = text(
    """
    SELECT
        (SELECT count(*) FROM (
            SELECT FROM saga_engine.pending_request LIMIT :count_limit) AS limited),
        coalesce(extract(epoch FROM clock_timestamp() - (
            SELECT received_at FROM saga_engine.pending_request ORDER BY id LIMIT 1)), 0)::float8,
        (SELECT count(*) FROM (
            SELECT FROM saga_engine.pending_request
            WHERE kind <> 'start' AND NOT awaits_start AND coalesce(definition_id, 0) > 0
            LIMIT :count_limit) AS limited)"""
)

_STARTS_WAITING = text(
    f"""
    WITH RECURSIVE sagas AS (
        (SELECT saga FROM saga_engine.pending_request WHERE kind = 'start' ORDER BY saga LIMIT 1)
        UNION ALL
        SELECT n.saga FROM sagas AS s, LATERAL (
            SELECT i.saga FROM saga_engine.pending_request AS i
            WHERE i.kind = 'start' AND i.saga > s.saga ORDER BY i.saga LIMIT 1) AS n
    )
    SELECT s.saga, (SELECT count(*) FROM (
        SELECT FROM saga_engine.pending_request AS i
        WHERE i.kind = 'start' AND i.saga = s.saga LIMIT :count_limit) AS limited)::integer
    FROM (SELECT saga FROM sagas LIMIT {GROUPS_MAX}) AS s"""  # noqa: S608 - a constant
)

_UNPARTITIONED = text(
    "SELECT count(*)::integer"
    " FROM (SELECT FROM saga_engine.run_default LIMIT :count_limit) AS limited"
)
