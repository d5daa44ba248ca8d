"""The statuses of runs, read for the clients that ask."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from saga_engine.decider.run import CompensationCause
from saga_engine.payload.serialization import from_data
from saga_engine.postgres.statement import Transaction, text
from saga_engine.protocol.open_incident import OpenIncident
from saga_engine.protocol.run_result import RunResult
from saga_engine.store import runs
from saga_engine.vocabulary import Failure, Status


class StatusRow(NamedTuple):
    """The columns of a run's status; the last three are JSON."""

    run_id: str
    status: str
    saga: str
    version: int
    key: str | None
    result: str
    cause: str
    open_incidents: str


async def read(tx: Transaction, run_ids: Collection[str]) -> dict[str, RunResult]:
    """Read the statuses of runs without locking them; runs that do not exist are left out."""
    if not run_ids:
        return {}
    return to_run_statuses(await tx.execute(_READ, runs.run_id_arguments(run_ids)))


def to_run_statuses(rows: Iterable[StatusRow]) -> dict[str, RunResult]:
    """Make statuses, by run id, of rows of runs."""
    return {run_id: _run_status(run_id, columns) for run_id, *columns in rows}


def _run_status(run_id: str, columns: Sequence[Any]) -> RunResult:
    status, saga, version, key, result, cause, incidents = columns
    open_incidents = orjson.loads(incidents)
    first = min(open_incidents, key=lambda each: int(each["number"]), default=None)
    return RunResult(
        run_id=UUID(run_id),
        status=Status(status),
        saga=saga,
        version=version,
        key=key,
        result=orjson.loads(result),
        error=failure_from_cause(orjson.loads(cause)),
        open_incidents=len(open_incidents),
        incident=None if first is None else from_data(OpenIncident, first),
    )


def failure_from_cause(cause: Any) -> Failure | None:
    """Return why a run compensates, from the column `cause`."""
    if cause is None:
        return None
    return from_data(CompensationCause, cause).as_failure


_READ = text(
    """
    SELECT r.run_id::text, r.status, d.name, d.version, r.key,
        coalesce(r.result, 'null')::text, coalesce(r.cause, 'null')::text, (
            SELECT coalesce(jsonb_agg(jsonb_build_object('number', i.number, 'step', i.step,
                'direction', i.direction, 'cause', i.cause, 'since', i.opened_at)), '[]')::text
            FROM saga_engine.incident AS i
            WHERE i.run_id = r.run_id AND i.resolved_at IS NULL)
    FROM saga_engine.run AS r JOIN saga_engine.definition AS d ON d.id = r.definition_id
    WHERE r.run_id = ANY (CAST(:run_ids AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)"""
)
