"""
What a benchmark checks in PostgreSQL after its runs: a figure of wrong runs would be worth nothing.

Of the benchmarks only this module reads the journal. A trail is the steps of a run that ended, in
the order of its journal: `charge`, `charge rejected`, or `undo charge` for its compensation.
"""

from collections import Counter
from collections.abc import Mapping
from uuid import UUID

import asyncpg

from benchmarks.load_generator import Workload
from benchmarks.servers import connect

_STATUSES = "SELECT status, count(*) FROM saga_engine.run WHERE run_id >= $1 GROUP BY status"

_TRAILS = """
    SELECT trail, count(*) FROM (
        SELECT string_agg(
            CASE event.value #>> '{data,direction}' WHEN 'compensation' THEN 'undo ' ELSE '' END
            || (event.value #>> '{data,step}')
            || CASE event.value ->> 'type' WHEN 'step_rejected' THEN ' rejected' ELSE '' END,
            ', ' ORDER BY revision, event.place) AS trail
        FROM saga_engine.journal AS j,
            jsonb_array_elements(j.events) WITH ORDINALITY AS event(value, place)
        WHERE j.run_id >= $1 AND event.value ->> 'type' IN ('step_succeeded', 'step_rejected')
        GROUP BY j.run_id) AS run
    GROUP BY trail"""

_LEFT_OVER = """
    SELECT (SELECT count(*) FROM saga_engine.pending_request) AS pending_requests,
        (SELECT count(*) FROM saga_engine.incident) AS incidents,
        (SELECT count(*) FROM saga_engine.dead_letter) AS dead_letters"""

_EFFECTS = "SELECT count(*) FROM saga_barrier"


async def check_runs(
    database_url: str, finished: Mapping[Workload, int], *, since: UUID, barrier: bool = False
) -> None:
    """
    Check that a database has the runs that finished and nothing that needs an operator.

    Args:
        finished: how many runs of each workload finished.
        since: runs with smaller ids are not read.
        barrier: whether the participants write each command into the barrier of that database.

    Raises:
        SystemExit: a status, a trail or a row is wrong.
    """
    statuses: Counter[str] = Counter()
    trails: Counter[str] = Counter()
    for workload, runs in finished.items():
        statuses[workload.expected_status] += runs
        trails[", ".join(workload.expected_trail)] += runs
    connection = await connect(database_url)
    try:
        _require("runs by status", await _counts(connection, _STATUSES, since), statuses)
        _require("runs by trail", await _counts(connection, _TRAILS, since), trails)
        left_over = dict(await connection.fetchrow(_LEFT_OVER))
        _require("rows left over", left_over, dict.fromkeys(left_over, 0))
        if barrier:
            commands = sum(runs * len(each.expected_trail) for each, runs in finished.items())
            _require("commands performed", await connection.fetchval(_EFFECTS), commands)
    finally:
        await connection.close()


async def _counts(connection: asyncpg.Connection, query: str, since: UUID) -> dict[str, int]:
    return dict(await connection.fetch(query, since))


def _require(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise SystemExit(f"The benchmark is wrong: {what}: {found}, expected {expected}.")
