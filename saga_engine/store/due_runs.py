"""
Runs with a due timer: found, claimed, counted and deferred, for workers with their definition.

A timer is due when `wake_at` has passed. Runs of definitions that the worker does not have are not
read: their index begins with the definition.

A worker claims a due run by moving `wake_at` on by a short lease, in a transaction of its own. If
it does not decide the run within the lease, the run is due again. Nothing depends on the lease: of
two workers that decide the same run one loses the fence (`batch_append`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from saga_engine.postgres.statement import Transaction, text


@dataclass(frozen=True, slots=True)
class DueRuns:
    """The runs that were claimed, and the time of the database; None if there were none."""

    run_ids: list[str]
    now: datetime | None


async def claim_due(
    tx: Transaction,
    definition_ids: Sequence[int],
    limit: int,
    *,
    lease: timedelta,
    excluding: Collection[str] = (),
) -> DueRuns:
    """
    Claim up to *limit* due runs, skipping those that another transaction has locked.

    Args:
        definition_ids: the definitions that the worker has.
        lease: no worker claims the run again before that time has passed.
        excluding: runs that are skipped.
    """
    arguments = {"definition_ids": list(definition_ids), "limit": limit, "lease": lease}
    rows = (await tx.execute(_CLAIM_DUE, {**arguments, "excluding": sorted(excluding)})).all()
    return DueRuns([run_id for run_id, _ in rows], max((now for _, now in rows), default=None))


async def due_within(
    tx: Transaction, horizons: Mapping[int, timedelta], count_limit: int
) -> dict[str, int]:
    """
    Count, by saga, the runs whose timer is due soon.

    Args:
        horizons: how soon, by definition. Runs of other definitions are not counted.
        count_limit: where the count of a definition ends.
    """
    arguments: dict[str, Any] = {
        "definition_ids": list(horizons),
        "horizons": list(horizons.values()),
        "count_limit": count_limit,
    }
    rows = await tx.execute(_DUE_WITHIN, arguments)
    return dict(rows.all())


async def due_run_ids(tx: Transaction, definition_ids: Sequence[int], limit: int) -> list[str]:
    """Return the ids of up to *limit* due runs, without reading their journals."""
    arguments = {"definition_ids": list(definition_ids), "limit": limit, "excluding": []}
    return list((await tx.execute(_DUE_RUN_IDS, arguments)).scalars())


async def defer_wake(tx: Transaction, run_id: str, delay: timedelta) -> None:
    """Defer the timer of a run that cannot be processed, so that other runs have their turn."""
    await tx.execute(_DEFER_WAKE, {"run_id": run_id, "delay": delay})


# The earliest of each definition, by its index: due runs of other definitions are not read.
# The clock is in a subquery because a volatile function cannot be used as an index condition.
_EARLIEST_DUE = """
    SELECT d.id, t.run_id, t.wake_at
    FROM unnest(CAST(:definition_ids AS integer[])) AS d(id),
        LATERAL (
            SELECT r.run_id, r.wake_at FROM saga_engine.run AS r
            WHERE r.definition_id = d.id AND r.wake_at <= (SELECT clock_timestamp())
                AND NOT r.run_id = ANY (CAST(:excluding AS uuid[]))
            ORDER BY r.wake_at LIMIT :limit) AS t
    ORDER BY t.wake_at LIMIT :limit"""

# First without locks, to find how many of the earliest runs each definition has; then that many
# runs of each definition are locked, skipping those that another transaction has locked. The bounds
# prune the months without a claimed run, which an array alone does not.
_CLAIM_DUE = text(
    f"""
    WITH share AS MATERIALIZED (
        SELECT e.id, count(*) AS due_runs FROM ({_EARLIEST_DUE}) AS e GROUP BY e.id),
    claimed AS MATERIALIZED (
        SELECT r.run_id
        FROM share AS s,
            LATERAL (
                SELECT r.run_id FROM saga_engine.run AS r
                WHERE r.definition_id = s.id AND r.wake_at <= (SELECT clock_timestamp())
                    AND NOT r.run_id = ANY (CAST(:excluding AS uuid[]))
                ORDER BY r.wake_at LIMIT s.due_runs FOR UPDATE OF r SKIP LOCKED) AS r)
    UPDATE saga_engine.run AS r SET wake_at = clock_timestamp() + CAST(:lease AS interval)
    WHERE r.run_id = ANY (ARRAY(SELECT c.run_id FROM claimed AS c))
        AND r.run_id >= (SELECT c.run_id FROM claimed AS c ORDER BY c.run_id LIMIT 1)
        AND r.run_id <= (SELECT c.run_id FROM claimed AS c ORDER BY c.run_id DESC LIMIT 1)
    RETURNING r.run_id::text, clock_timestamp()"""  # noqa: S608 - a constant
)

_DUE_WITHIN = text(
    """
    SELECT d.name, sum((
        SELECT count(*) FROM (
            SELECT FROM saga_engine.run AS r
            WHERE r.definition_id = h.id
                AND r.wake_at <= (SELECT clock_timestamp()) + h.horizon
            LIMIT :count_limit) AS limited
        ))::integer
    FROM unnest(CAST(:definition_ids AS integer[]), CAST(:horizons AS interval[])) AS h(id, horizon)
    JOIN saga_engine.definition AS d ON d.id = h.id
    GROUP BY d.name"""
)

_DUE_RUN_IDS = text(f"SELECT e.run_id::text FROM ({_EARLIEST_DUE}) AS e ORDER BY e.wake_at")  # noqa: S608

_DEFER_WAKE = text(
    """
    UPDATE saga_engine.run SET wake_at = clock_timestamp() + CAST(:delay AS interval)
    WHERE run_id = CAST(:run_id AS uuid) AND wake_at IS NOT NULL"""
)
