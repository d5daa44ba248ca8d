"""
What the command line and the gauges show, as plain values. Nothing here locks or changes anything.

Lists come in pages by the last id seen, and find what they show by an index, so that ten million
finished runs cost no more than ten. Times are aware, ages are seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Select, false, literal_column, select, text

from saga_engine.saga.run import Failure
from saga_engine.saga.vocabulary import Json, Status
from saga_engine.store import audit, incidents, journal, outbox, stranded
from saga_engine.store.audit import Audited
from saga_engine.store.database import Transaction
from saga_engine.store.incidents import StoredIncident
from saga_engine.store.journal import Recorded
from saga_engine.store.runs import StoredRun, failure_of, look
from saga_engine.store.tables import definition, run, run_key
from saga_engine.store.total import GROUPS, Total, total


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of a list of runs."""

    run_id: str
    saga: str
    version: int
    key: str | None
    status: Status
    revision: int
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    deadline: datetime | None
    open_incidents: int
    result: Json
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class RunDetail:
    """Everything on record about one run; `document` is that of `definitions.document_of`."""

    stored: StoredRun
    document: Mapping[str, Any]
    journal: Sequence[Recorded]
    incidents: Sequence[StoredIncident]
    audit: Sequence[Audited]


@dataclass(frozen=True, slots=True)
class Counts:
    """
    What the gauges show.

    `runs` counts unfinished runs by saga and status, `oldest_run_age` is by saga, `open_incidents`
    by saga, cause and step. `parked` is what
    waits in the inbox for a worker with its definition, `inbox` all that waits there, and of that
    `starts_waiting` the starts, by saga; `starts_stranded` are those of them that are pinned to a
    definition that no worker has, see `definitions.Presence`. `unpartitioned` are the runs in no
    month's partition. No number is higher than the limit that was given: that one means at least
    as many.
    """

    runs: Mapping[tuple[str, Status], int]
    oldest_run_age: Mapping[str, float]
    open_incidents: Mapping[tuple[str, str, str], int]
    dead_letters: Mapping[tuple[str, str], int]
    starts_waiting: Mapping[str, int]
    starts_stranded: Mapping[str, int]
    outbox_pending: int
    outbox_oldest_age: float
    timers_pending: int
    timer_overdue: float
    inbox: int
    inbox_oldest_age: float
    parked: int
    unpartitioned: int


async def runs(  # noqa: PLR0913 - one for each way to choose
    tx: Transaction,
    *,
    limit: int,
    status: Status | None = None,
    saga: str | None = None,
    key: str | None = None,
    mark: str | None = None,
    before: str | None = None,
) -> list[RunSummary]:
    """
    Read runs, the newest first; `before` is the last run id of the page before.

    The newest is the one whose start was asked for last: a run id is a UUIDv7, so it begins with
    that time, and the primary key is the order.

    `mark` is how a text begins that is a value in the run's input or state. No index knows of those
    texts: together with a status of unfinished runs it is quick, alone it reads every run.
    """
    query = _SUMMARY.order_by(run.c.run_id.desc()).limit(limit)
    if mark is None and key is None and (status is not None or saga is not None):
        page = {
            "statuses": [status.value] if status else [each.value for each in Status],
            "limit": limit,
        }
        page |= {"saga": saga, "before": before}
        found = (await tx.execute(_PAGE, page)).scalars()
        query = query.where(run.c.run_id.in_(list(found)))
    else:
        query = await _chosen(tx, query, status=status, saga=saga, key=key)
        if mark is not None:
            query = query.where(_MARKED.bindparams(mark=f'"{mark}'))
        if before is not None:
            query = query.where(run.c.run_id < before)
    return [_summary(row) for row in await tx.execute(query)]


async def count_runs(
    tx: Transaction,
    most: int,
    *,
    status: Status | None = None,
    saga: str | None = None,
    key: str | None = None,
) -> Total:
    """Count runs, up to *most*."""
    if key is None and status is not None:
        counted = {"status": status.value, "saga": saga, "more": most + 1}
        number: int = (await tx.execute(_COUNT, counted)).scalar_one()
        return Total(min(number, most), exact=number <= most)
    return await total(tx, await _chosen(tx, _SUMMARY, status=status, saga=saga, key=key), most)


async def _chosen(
    tx: Transaction,
    query: Select[Any],
    *,
    status: Status | None,
    saga: str | None,
    key: str | None,
) -> Select[Any]:
    if status is not None:
        query = query.where(run.c.status == status.value)
    if saga is not None:
        pinned = await _definitions_of(tx, saga)
        query = query.where(run.c.definition_id.in_(pinned) if pinned else false())
    if key is not None:
        query = query.where(run.c.run_id.in_(await _with_key(tx, key)))
    return query


async def find(tx: Transaction, run_id: str) -> RunSummary | None:
    """Read one run in short; None when there is none of that id."""
    row = (await tx.execute(_SUMMARY.where(run.c.run_id == run_id))).one_or_none()
    return None if row is None else _summary(row)


async def with_key(tx: Transaction, saga: str, key: str) -> str | None:
    """Find the run that holds a key of a saga; it may still be waiting for a worker."""
    held = select(run_key.c.run_id).where(run_key.c.saga == saga, run_key.c.key == key)
    found: str | None = (await tx.execute(held)).scalar_one_or_none()
    return found


async def show(tx: Transaction, run_id: str) -> RunDetail | None:
    """Read everything about one run; None when there is none of that id."""
    stored = (await look(tx, [run_id])).get(run_id)
    if stored is None:
        return None
    pinned = select(definition.c.document).where(definition.c.id == stored.definition_id)
    return RunDetail(
        stored,
        (await tx.execute(pinned)).scalar_one(),
        await journal.read(tx, run_id),
        await incidents.listing(tx, run_id=run_id, limit=stored.run.incidents_ever + 1),
        await audit.of_run(tx, run_id),
    )


async def counts(tx: Transaction, most: int = 10_000) -> Counts:
    """
    Count what is unfinished, open or waiting; the finished is never looked at.

    The runs come last: from then on the months cannot be changed until *tx* ends, and no other
    count may keep them waiting.

    Args:
        most: rows counted for one number at most.
    """
    limit = {"most": most}
    letters = (await tx.execute(_LETTERS, limit)).all()
    starts: dict[str, int] = dict((await tx.execute(_STARTS_WAITING, limit)).all())
    starts_stranded = await stranded.count(tx, most)
    backlog = await outbox.backlog(tx, most)
    waiting = (await tx.execute(_INBOX, limit)).one()
    unfinished = (await tx.execute(_UNFINISHED, limit)).all()
    ages: dict[str, float] = {}
    numbers: dict[tuple[str, Status], int] = {}
    for saga, status, number, age in unfinished:
        ages[saga] = max(age, ages.get(saga, 0.0))
        key = saga, Status(status)
        numbers[key] = min(most, number + numbers.get(key, 0))
    unpartitioned = (await tx.execute(_UNPARTITIONED, limit)).scalar_one()
    return Counts(
        numbers,
        ages,
        {tuple(group): number for *group, number in await tx.execute(_INCIDENTS, limit)},
        {(queue, reason): number for queue, reason, number in letters},
        starts,
        starts_stranded,
        backlog.pending,
        backlog.oldest_age,
        *(await tx.execute(_TIMERS, limit)).one(),
        *(*waiting, unpartitioned),
    )


async def _definitions_of(tx: Transaction, saga: str) -> list[int]:
    ids = select(definition.c.id).where(definition.c.name == saga)
    return list((await tx.execute(ids)).scalars())


async def _with_key(tx: Transaction, key: str) -> list[str]:
    """Look the key up in every saga: that is what its index can do."""
    sagas = select(definition.c.name).distinct()
    held = select(run_key.c.run_id).where(run_key.c.saga.in_(sagas), run_key.c.key == key)
    return list((await tx.execute(held)).scalars())


def _summary(row: Any) -> RunSummary:
    *columns, incidents_open, status, result, cause = row
    run_id, saga, version, key, revision, started_at, updated_at, finished_at, deadline = columns
    return RunSummary(
        *(run_id, saga, version, key, Status(status), revision),
        *(started_at, updated_at, finished_at, deadline, incidents_open),
        orjson.loads(result),
        failure_of(orjson.loads(cause)),
    )


_SUMMARY = select(
    *(run.c.run_id, definition.c.name, definition.c.version, run.c.key, run.c.revision),
    *(run.c.started_at, run.c.updated_at, run.c.finished_at, run.c.deadline),
    literal_column(
        "(SELECT count(*) FROM jsonb_object_keys(coalesce(run.state -> 'incidents', '{}')))"
    ),
    run.c.status,
    literal_column("coalesce(run.state -> 'result', 'null')::text"),
    literal_column("coalesce(run.state -> 'cause', 'null')::text"),
).join(definition, definition.c.id == run.c.definition_id)

# Of each definition and status by itself the newest, by their index; of those the newest.
_PAGE = text(
    """
    SELECT t.run_id::text
    FROM saga_engine.definition AS d, unnest(CAST(:statuses AS text[])) AS s(status),
        LATERAL (
            SELECT r.run_id FROM saga_engine.run AS r
            WHERE r.definition_id = d.id AND r.status = s.status
                AND r.run_id < coalesce(CAST(:before AS uuid),
                    'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
            ORDER BY r.run_id DESC LIMIT :limit) AS t
    WHERE d.name = coalesce(CAST(:saga AS text), d.name)
    ORDER BY t.run_id DESC LIMIT :limit"""
)

_COUNT = text(
    """
    SELECT count(*) FROM (
        SELECT FROM saga_engine.definition AS d, LATERAL (
            SELECT FROM saga_engine.run AS r
            WHERE r.definition_id = d.id AND r.status = :status LIMIT :more) AS t
        WHERE d.name = coalesce(CAST(:saga AS text), d.name) LIMIT :more) AS few"""
)

_MARKED = text("(strpos(run.input::text, :mark) > 0 OR strpos(run.state::text, :mark) > 0)")

# Each count ends at a limit, and each oldest is found by an index: what others leave costs nothing.
_UNFINISHED = text(
    """
    SELECT d.name, s.status, u.number::integer,
        extract(epoch FROM clock_timestamp() - u.oldest)::float8
    FROM saga_engine.definition AS d,
        unnest(ARRAY['running', 'compensating']) AS s(status),
        LATERAL (
            SELECT count(*) AS number, min(few.started_at) AS oldest FROM (
                SELECT r.started_at FROM saga_engine.run AS r
                WHERE r.definition_id = d.id AND r.status = s.status
                ORDER BY r.run_id LIMIT :most) AS few) AS u
    WHERE u.number > 0"""
)

_INCIDENTS = text(
    """
    SELECT d.name, i.cause, i.step, count(*)
    FROM (
        SELECT run_id, cause, step FROM saga_engine.incident
        WHERE resolved_at IS NULL ORDER BY opened_at LIMIT :most) AS i
    JOIN saga_engine.run AS r ON r.run_id = i.run_id
    JOIN saga_engine.definition AS d ON d.id = r.definition_id
    GROUP BY d.name, i.cause, i.step"""
)

# From one queue and reason to the next by their index, whatever lies between.
_LETTERS = text(
    f"""
    WITH RECURSIVE kinds AS (
        (SELECT queue, reason FROM saga_engine.dead_letter
            WHERE state = 'open' ORDER BY queue, reason LIMIT 1)
        UNION ALL
        SELECT n.queue, n.reason FROM kinds AS k, LATERAL (
            SELECT l.queue, l.reason FROM saga_engine.dead_letter AS l
            WHERE l.state = 'open' AND (l.queue, l.reason) > (k.queue, k.reason)
            ORDER BY l.queue, l.reason LIMIT 1) AS n
    )
    SELECT k.queue, k.reason, (SELECT count(*) FROM (
        SELECT FROM saga_engine.dead_letter AS l
        WHERE l.state = 'open' AND l.queue = k.queue AND l.reason = k.reason LIMIT :most) AS few)
    FROM (SELECT queue, reason FROM kinds LIMIT {GROUPS}) AS k"""  # noqa: S608 - a constant
)

_TIMERS = text(
    """
    SELECT least(CAST(:most AS bigint), coalesce(sum(u.number), 0)::bigint), greatest(
        coalesce(extract(epoch FROM clock_timestamp() - min(u.earliest)), 0), 0)::float8
    FROM saga_engine.definition AS d, LATERAL (
        SELECT count(*) AS number, min(few.wake_at) AS earliest FROM (
            SELECT r.wake_at FROM saga_engine.run AS r
            WHERE r.definition_id = d.id AND r.wake_at IS NOT NULL
            ORDER BY r.wake_at LIMIT :most) AS few) AS u"""
)

_INBOX = text(
    """
    SELECT (SELECT count(*) FROM (SELECT FROM saga_engine.inbox LIMIT :most) AS few),
        coalesce(extract(epoch FROM clock_timestamp() - (
            SELECT received_at FROM saga_engine.inbox ORDER BY id LIMIT 1)), 0)::float8,
        (SELECT count(*) FROM (
            SELECT FROM saga_engine.inbox
            WHERE kind <> 'start' AND NOT held AND coalesce(definition_id, 0) > 0
            LIMIT :most) AS few)"""
)

_STARTS_WAITING = text(
    f"""
    WITH RECURSIVE sagas AS (
        (SELECT saga FROM saga_engine.inbox WHERE kind = 'start' ORDER BY saga LIMIT 1)
        UNION ALL
        SELECT n.saga FROM sagas AS s, LATERAL (
            SELECT i.saga FROM saga_engine.inbox AS i
            WHERE i.kind = 'start' AND i.saga > s.saga ORDER BY i.saga LIMIT 1) AS n
    )
    SELECT s.saga, (SELECT count(*) FROM (
        SELECT FROM saga_engine.inbox AS i
        WHERE i.kind = 'start' AND i.saga = s.saga LIMIT :most) AS few)::integer
    FROM (SELECT saga FROM sagas LIMIT {GROUPS}) AS s"""  # noqa: S608 - a constant
)

_UNPARTITIONED = text(
    "SELECT count(*)::integer FROM (SELECT FROM saga_engine.run_default LIMIT :most) AS few"
)
