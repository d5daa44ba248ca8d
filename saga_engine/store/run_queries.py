"""
Reads of runs for the command line: pages, counts and details. Nothing here locks or changes a run.

Lists are paged by the last id of the previous page and use indexes, so that ten million finished
runs cost no more than ten.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from saga_engine.decider.run import Run
from saga_engine.postgres.statement import Transaction, text
from saga_engine.store import audit, incidents, journal
from saga_engine.store.audit import AuditRecord
from saga_engine.store.bounded_count import BoundedCount, count_up_to, to_bounded_count
from saga_engine.store.incidents import StoredIncident
from saga_engine.store.journal import StoredEvent
from saga_engine.store.journal_replay import Damage, StoredRunRow, replay_readable
from saga_engine.store.run_statuses import failure_from_cause
from saga_engine.store.runs import StoredRun
from saga_engine.vocabulary import Failure, Json, Status

NIL_RUN_ID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetail:
    """
    Everything that is stored of one run; `document` is that of `definitions.document_of`.

    `damage` says what of its journal cannot be read; `stored_run` is as of the revision before.
    """

    stored_run: StoredRun
    document: Mapping[str, Any]
    journal: Sequence[StoredEvent]
    incidents: Sequence[StoredIncident]
    audit: Sequence[AuditRecord]
    damage: Sequence[Damage] = ()


async def list_runs(  # noqa: PLR0913 - one for each way to choose
    tx: Transaction,
    *,
    limit: int,
    status: Status | None = None,
    saga: str | None = None,
    key: str | None = None,
    value_prefix: str | None = None,
    before_run_id: str | None = None,
) -> list[RunSummary]:
    """
    Read runs, the newest first.

    The newest is the one whose start was requested last: a run id is a UUIDv7, so it begins with
    that time, and the primary key is the order.

    Args:
        value_prefix: only runs with a text in their journal that begins with it. It has no index:
            with a status of unfinished runs it is fast, alone it reads every journal.
        before_run_id: the last run id of the previous page.
    """
    if value_prefix is None and key is None and (status is not None or saga is not None):
        page_arguments = {
            "statuses": [status.value] if status else [each.value for each in Status],
            "limit": limit,
        }
        page_arguments |= {"saga": saga, "before": before_run_id}
        conditions, arguments = (
            [_RUN_ID_IN],
            _run_id_arguments((await tx.execute(_PAGE_RUN_IDS, page_arguments)).scalars()),
        )
    else:
        conditions, arguments = await _run_conditions(tx, status=status, saga=saga, key=key)
        if value_prefix is not None:
            conditions.append(_HAS_VALUE_PREFIX)
            arguments["value_prefix"] = f'"{value_prefix}'
        if before_run_id is not None:
            conditions.append("r.run_id < CAST(:before AS uuid)")
            arguments["before"] = before_run_id
    query = text(f"{_SUMMARY} {_where_clause(conditions)} ORDER BY r.run_id DESC LIMIT :limit")
    return [_summary(row) for row in await tx.execute(query, {**arguments, "limit": limit})]


async def count_runs(
    tx: Transaction,
    count_limit: int,
    *,
    status: Status | None = None,
    saga: str | None = None,
    key: str | None = None,
) -> BoundedCount:
    """Count runs, up to *count_limit*."""
    if key is None and status is not None:
        count_arguments = {"status": status.value, "saga": saga, "probe_limit": count_limit + 1}
        number: int = (await tx.execute(_COUNT, count_arguments)).scalar_one()
        return to_bounded_count(number, count_limit)
    conditions, arguments = await _run_conditions(tx, status=status, saga=saga, key=key)
    return await count_up_to(tx, f"{_FROM} {_where_clause(conditions)}", arguments, count_limit)


async def _run_conditions(
    tx: Transaction, *, status: Status | None, saga: str | None, key: str | None
) -> tuple[list[str], dict[str, Any]]:
    """Write the filter as conditions in SQL and their arguments."""
    conditions, arguments = [], dict[str, Any]()
    if status is not None:
        conditions.append("r.status = :status")
        arguments["status"] = status.value
    if saga is not None:
        conditions.append("r.definition_id = ANY (CAST(:definition_ids AS integer[]))")
        definition_ids = await tx.execute(_DEFINITION_IDS, {"saga": saga})
        arguments["definition_ids"] = list(definition_ids.scalars())
    if key is not None:
        # In every saga: the index of business keys begins with the saga.
        conditions.append(_RUN_ID_IN)
        arguments |= _run_id_arguments(
            (await tx.execute(_RUN_IDS_WITH_KEY, {"key": key})).scalars()
        )
    return conditions, arguments


def _run_id_arguments(run_ids: Iterable[str]) -> dict[str, Any]:
    """The arguments of _RUN_ID_IN."""
    ordered = sorted(run_ids)
    return {
        "run_ids": ordered,
        "first": min(ordered, default=NIL_RUN_ID),
        "last": max(ordered, default=NIL_RUN_ID),
    }


def _where_clause(conditions: Sequence[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


async def find(tx: Transaction, run_id: str) -> RunSummary | None:
    """Read the summary of one run; None when there is no such run."""
    row = (await tx.execute(_FIND, {"run_id": run_id})).one_or_none()
    return None if row is None else _summary(row)


async def find_by_key(tx: Transaction, saga: str, key: str) -> str | None:
    """Find the run that has a business key of a saga; its start may still be pending."""
    result = await tx.execute(_KEY_OWNER, {"saga": saga, "key": key})
    found: str | None = result.scalar_one_or_none()
    return found


async def read_detail(tx: Transaction, run_id: str) -> RunDetail | None:
    """
    Read everything that is stored of one run; None when there is no such run.

    Of a damaged run it is what can be read.
    """
    row = (await tx.execute(_READ_ROW, {"run_id": run_id})).one_or_none()
    if row is None:
        return None
    stored, events, damage = replay_readable(_run_row(row), await journal.read_rows(tx, run_id))
    count = (await tx.execute(_COUNT_INCIDENTS, {"run_id": run_id})).scalar_one()
    return RunDetail(
        stored_run=stored,
        document=orjson.loads(row.document),
        journal=events,
        incidents=await incidents.read_page(tx, run_id=run_id, limit=count + 1),
        audit=await audit.list_for_run(tx, run_id),
        damage=damage,
    )


def _run_row(row: Any) -> StoredRunRow:
    return StoredRunRow(
        identity=Run(
            run_id=row.run_id,
            saga=row.saga,
            version=row.version,
            fingerprint=row.fingerprint,
            key=row.key,
            input=None,
            started_at=row.started_at,
            deadline=row.deadline,
        ),
        definition_id=row.definition_id,
        wake_at=row.wake_at,
        status=Status(row.status),
        finished_at=row.finished_at,
        result=row.result,
        snapshot=row.snapshot,
        snapshot_revision=row.snapshot_revision,
    )


def _summary(row: Any) -> RunSummary:
    return RunSummary(
        run_id=row.run_id,
        saga=row.saga,
        version=row.version,
        key=row.key,
        status=Status(row.status),
        revision=row.revision,
        started_at=row.started_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        deadline=row.deadline,
        open_incidents=row.open_incidents,
        result=orjson.loads(row.result),
        failure=_readable_failure(row.cause),
    )


def _readable_failure(cause: str) -> Failure | None:
    """Why a run compensates; a damaged column must not keep other runs from being listed."""
    try:
        return failure_from_cause(orjson.loads(cause))
    except Exception:  # noqa: BLE001 - of any kind of damage
        return Failure("unreadable", "The stored cause of this run is damaged.")


_FROM = """
    FROM saga_engine.run AS r JOIN saga_engine.definition AS d ON d.id = r.definition_id"""

_SUMMARY = f"""
    SELECT r.run_id::text AS run_id, d.name AS saga, d.version, r.key,
        coalesce(last.revision, r.snapshot_revision) AS revision, r.started_at,
        coalesce(last.recorded_at, r.started_at) AS updated_at, r.finished_at, r.deadline, r.status,
        (SELECT count(*) FROM saga_engine.incident AS i
            WHERE i.run_id = r.run_id AND i.resolved_at IS NULL) AS open_incidents,
        coalesce(r.result, 'null')::text AS result, coalesce(r.cause, 'null')::text AS cause
    {_FROM} LEFT JOIN LATERAL (
        SELECT j.revision, j.recorded_at FROM saga_engine.journal AS j
        WHERE j.run_id = r.run_id ORDER BY j.revision DESC LIMIT 1) AS last ON true"""  # noqa: S608 - a constant

_FIND = text(f"{_SUMMARY} WHERE r.run_id = CAST(:run_id AS uuid)")

_READ_ROW = text(
    f"""
    SELECT r.run_id::text AS run_id, d.name AS saga, d.version, d.fingerprint, r.key, r.started_at,
        r.deadline, r.definition_id, r.wake_at, r.status, r.finished_at, r.snapshot_revision,
        coalesce(r.result, 'null')::text AS result, coalesce(r.snapshot, 'null')::text AS snapshot,
        d.document::text AS document
    {_FROM} WHERE r.run_id = CAST(:run_id AS uuid)"""
)

_COUNT_INCIDENTS = text(
    "SELECT count(*) FROM saga_engine.incident WHERE run_id = CAST(:run_id AS uuid)"
)

_DEFINITION_IDS = text("SELECT id FROM saga_engine.definition WHERE name = :saga")

_KEY_OWNER = text(
    "SELECT run_id::text FROM saga_engine.business_key WHERE saga = :saga AND key = :key"
)

_RUN_IDS_WITH_KEY = text(
    """
    SELECT run_id::text FROM saga_engine.business_key
    WHERE saga IN (SELECT DISTINCT name FROM saga_engine.definition) AND key = :key"""
)

# An array that is a parameter prunes no partition, and the bounds do.
_RUN_ID_IN = """
    r.run_id = ANY (CAST(:run_ids AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)"""

# The newest of each definition and status, by the index; of those the newest.
_PAGE_RUN_IDS = text(
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
            WHERE r.definition_id = d.id AND r.status = :status LIMIT :probe_limit) AS t
        WHERE d.name = coalesce(CAST(:saga AS text), d.name) LIMIT :probe_limit) AS limited"""
)

_HAS_VALUE_PREFIX = """
    EXISTS (SELECT FROM saga_engine.journal AS v
        WHERE v.run_id = r.run_id AND strpos(v.events::text, :value_prefix) > 0)"""
