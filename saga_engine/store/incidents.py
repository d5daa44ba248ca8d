"""
Incidents: where runs need an operator, in a table that can be searched.

The journal is the source. These rows follow from its events, in the same transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from saga_engine.decider.events import Event, IncidentOpened, IncidentResolved, RunAbandoned
from saga_engine.postgres.statement import Columns, Transaction, text
from saga_engine.store.bounded_count import BoundedCount, count_up_to
from saga_engine.vocabulary import Direction, IncidentCause, Resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIncident:
    """One incident, and the run it belongs to."""

    run_id: str
    saga: str
    version: int
    key: str | None
    number: int
    step: str
    direction: Direction
    cause: IncidentCause
    message: str
    opened_at: datetime
    resolved_at: datetime | None
    resolution: Resolution | None
    operator: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentFilter:
    """
    Selects incidents; None: any.

    Args:
        older_than: only incidents that were opened at least that long ago.
        include_resolved: not only the open ones.
    """

    saga: str | None = None
    cause: IncidentCause | None = None
    step: str | None = None
    older_than: timedelta | None = None
    include_resolved: bool = False


OPEN_INCIDENTS = IncidentFilter()


@dataclass(frozen=True, slots=True)
class IncidentGroup:
    """
    Incidents with the same values of some fields.

    `shared_values` are those values by the name of the field, `example` is one of the incidents, as
    RUN/NUMBER.
    """

    shared_values: Mapping[str, str]
    count: int
    oldest_opened_at: datetime
    example: str


async def record(tx: Transaction, events: Sequence[tuple[str, Event]]) -> None:
    """Open and resolve the incidents of *events*, each with its run id; others are ignored."""
    if opened := opened_columns(events):
        await tx.execute(_OPEN, opened)
    if resolved := resolved_columns(events):
        await tx.execute(_RESOLVE, resolved)


async def read_page(
    tx: Transaction,
    incident_filter: IncidentFilter = OPEN_INCIDENTS,
    *,
    limit: int,
    run_id: str | None = None,
    after: StoredIncident | None = None,
) -> list[StoredIncident]:
    """
    Read incidents, the oldest first; of one run, the resolved ones too.

    Args:
        after: the last incident of the previous page.
    """
    where, arguments = _where_clause(incident_filter, run_id)
    if after is not None:
        where += _AFTER
        arguments |= {
            "opened_at": after.opened_at,
            "run_id_after": after.run_id,
            "number": after.number,
        }
    query = text(f"{_SELECT} {where} ORDER BY i.opened_at, i.run_id, i.number LIMIT :limit")
    return [_stored_incident(row) for row in await tx.execute(query, {**arguments, "limit": limit})]


async def find(tx: Transaction, run_id: str, number: int) -> StoredIncident | None:
    """Read one incident; None when the run has none with that number."""
    row = (await tx.execute(_FIND, {"run_id": run_id, "number": number})).one_or_none()
    return None if row is None else _stored_incident(row)


async def count(tx: Transaction, incident_filter: IncidentFilter, count_limit: int) -> BoundedCount:
    """Count incidents, up to *count_limit*."""
    where, arguments = _where_clause(incident_filter)
    return await count_up_to(tx, f"{_FROM} {where}", arguments, count_limit)


async def count_groups(
    tx: Transaction, incident_filter: IncidentFilter, fields: Sequence[str], *, limit: int
) -> list[IncidentGroup]:
    """
    Count incidents by some fields, the largest group first.

    Args:
        fields: one or more of cause, step and saga.
    """
    where, arguments = _where_clause(incident_filter)
    group_columns = ", ".join(_FILTER_COLUMNS[name] for name in fields)
    query = text(
        f"""
        SELECT {group_columns}, count(*), min(i.opened_at), min(i.run_id::text || '/' ||
        i.number::text)
        {_FROM} {where}
        GROUP BY {group_columns} ORDER BY count(*) DESC, {group_columns} LIMIT :limit"""
    )
    return [
        IncidentGroup(dict(zip(fields, row, strict=False)), *row[len(fields) :])
        for row in await tx.execute(query, {**arguments, "limit": limit})
    ]


def _where_clause(
    incident_filter: IncidentFilter, run_id: str | None = None
) -> tuple[str, dict[str, Any]]:
    """Write the filter as a WHERE clause and its arguments."""
    conditions, arguments = [], dict[str, Any]()
    if run_id is not None:
        conditions.append("i.run_id = CAST(:run_id AS uuid)")
        arguments["run_id"] = run_id
    elif not incident_filter.include_resolved:
        conditions.append("i.resolved_at IS NULL")
    for name, column in _FILTER_COLUMNS.items():
        if (value := getattr(incident_filter, name)) is not None:
            conditions.append(f"{column} = :{name}")
            arguments[name] = value
    if incident_filter.older_than is not None:
        conditions.append("i.opened_at <= now() - CAST(:older_than AS interval)")
        arguments["older_than"] = incident_filter.older_than
    return f"WHERE {' AND '.join(conditions) or 'true'}", arguments


_FILTER_COLUMNS = {"cause": "i.cause", "step": "i.step", "saga": "d.name"}

# Of a run only its key is read, so that a role without the right to read payloads can list.
_FROM = """
    FROM saga_engine.incident AS i
    JOIN saga_engine.run AS r ON r.run_id = i.run_id
    JOIN saga_engine.definition AS d ON d.id = r.definition_id"""

_SELECT = f"""
    SELECT i.run_id::text, d.name, d.version, r.key, i.number, i.step, i.direction, i.cause,
        i.message, i.opened_at, i.resolved_at, i.resolution, i.operator, i.reason
    {_FROM}"""

_AFTER = """
    AND (i.opened_at, i.run_id, i.number)
        > (CAST(:opened_at AS timestamptz), CAST(:run_id_after AS uuid),
            CAST(:number AS integer))"""

_FIND = text(f"{_SELECT} WHERE i.run_id = CAST(:run_id AS uuid) AND i.number = :number")


def _stored_incident(columns: Iterable[Any]) -> StoredIncident:
    (
        run_id,
        saga,
        version,
        key,
        number,
        step,
        direction,
        cause,
        message,
        opened_at,
        resolved_at,
        resolution,
        operator,
        reason,
    ) = columns
    return StoredIncident(
        run_id=run_id,
        saga=saga,
        version=version,
        key=key,
        number=number,
        step=step,
        direction=Direction(direction),
        cause=IncidentCause(cause),
        message=message,
        opened_at=opened_at,
        resolved_at=resolved_at,
        resolution=Resolution(resolution) if resolution else None,
        operator=operator,
        reason=reason,
    )


def opened_columns(events: Sequence[tuple[str, Event]]) -> Columns | None:
    """Write the incidents that *events* open as rows; None when there are none."""
    opened = [(run_id, event) for run_id, event in events if isinstance(event, IncidentOpened)]
    if not opened:
        return None
    return {
        "run_id": [run_id for run_id, _ in opened],
        "number": [event.number for _, event in opened],
        "step": [event.step for _, event in opened],
        "direction": [event.direction.value for _, event in opened],
        "cause": [event.cause for _, event in opened],
        "message": [event.message for _, event in opened],
        "opened_at": [event.opened_at for _, event in opened],
    }


def resolved_columns(events: Sequence[tuple[str, Event]]) -> Columns | None:
    """
    Write how *events* resolve incidents as rows; None when they resolve none.

    An abandoned run resolves all its incidents: no number means all of them.
    """
    resolving = [
        (run_id, event)
        for run_id, event in events
        if isinstance(event, IncidentResolved | RunAbandoned)
    ]
    if not resolving:
        return None
    return {
        "run_id": [run_id for run_id, _ in resolving],
        "number": [getattr(event, "number", None) for _, event in resolving],
        "resolution": [
            Resolution.ABANDON.value if isinstance(event, RunAbandoned) else event.resolution
            for _, event in resolving
        ],
        "operator": [event.operator for _, event in resolving],
        "reason": [event.reason for _, event in resolving],
    }


_OPEN = text(
    """
    INSERT INTO saga_engine.incident (run_id, number, step, direction, cause, message, opened_at)
    SELECT * FROM unnest(CAST(:run_id AS uuid[]), CAST(:number AS integer[]),
        CAST(:step AS text[]), CAST(:direction AS text[]), CAST(:cause AS text[]),
        CAST(:message AS text[]), CAST(:opened_at AS timestamptz[]))"""
)

# An incident that is resolved itself comes before those that are resolved with the run, so that it
# keeps its own reason.
_RESOLVE = text(
    """
    UPDATE saga_engine.incident AS i
    SET resolved_at = clock_timestamp(), resolution = u.resolution, operator = u.operator,
        reason = u.reason
    FROM (
        SELECT DISTINCT ON (o.run_id, o.number) o.run_id, o.number, w.resolution, w.operator,
            w.reason
        FROM unnest(CAST(:run_id AS uuid[]), CAST(:number AS integer[]),
            CAST(:resolution AS text[]), CAST(:operator AS text[]), CAST(:reason AS text[]))
            AS w(run_id, number, resolution, operator, reason)
        JOIN saga_engine.incident AS o
            ON o.run_id = w.run_id AND (w.number IS NULL OR o.number = w.number)
        WHERE o.run_id = ANY (CAST(:run_id AS uuid[])) AND o.resolved_at IS NULL
        ORDER BY o.run_id, o.number, w.number NULLS LAST
    ) AS u
    WHERE i.run_id = u.run_id AND i.number = u.number
        AND i.run_id = ANY (CAST(:run_id AS uuid[]))"""
)
