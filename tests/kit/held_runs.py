"""
P5 of what workers hold in memory: a run is the fold of its journal up to the revision it has there.

An older revision is legal: another worker may have decided about the run since.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable

from sqlalchemy import text

from saga_engine.decider.evolve import replay
from saga_engine.decider.run import Run
from saga_engine.store.event_data import deserialize_event
from saga_engine.store.journal import StoredEvent, stored_events
from saga_engine.store.runs import StoredRun
from saga_engine.worker.transaction_runner import TransactionRunner


def runs_held_by(transactions: TransactionRunner) -> list[StoredRun]:
    """The runs in the cache of a worker. `find` would count as a use of them."""
    return list(transactions._cache._runs.values())


def fold(journal: Iterable[StoredEvent], revision: int) -> Run | None:
    """Apply the events of a journal from its first row to that of a revision."""
    return replay(
        deserialize_event(each.type, each.data) for each in journal if each.revision <= revision
    )


async def check_held_runs(tx, held: Collection[StoredRun]):
    """Assert that each run that a worker holds is what its journal says at its revision."""
    revisions = defaultdict[str, list[int]](list)
    journals = defaultdict[str, list[StoredEvent]](list)
    run_ids = [each.run.run_id for each in held]
    for run_id, *row in await tx.execute(_JOURNALS, {"run_ids": run_ids}):
        revisions[run_id].append(row[0])
        journals[run_id].extend(stored_events(*row))
    for each in held:
        run_id, revision = each.run.run_id, each.revision
        assert revision in revisions[run_id], (
            f"P5: a worker holds revision {revision} of {run_id}, and its journal has"
            f" {revisions[run_id]}"
        )
        folded = fold(journals[run_id], revision)
        assert each.run == folded, f"P5: a worker holds, at {revision}:\n{each.run}\n{folded}"


_JOURNALS = text(
    """
    SELECT run_id::text, revision, recorded_at, position, events::text
    FROM saga_engine.journal
    WHERE run_id = ANY (CAST(:run_ids AS uuid[])) ORDER BY run_id, revision"""
)
