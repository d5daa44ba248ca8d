"""
Checks P5 of what a worker holds in memory: each run is the fold of its journal up to its revision.

An older revision is legal: another worker may have decided about the run since. A run is compared
right after each commit that has decided about it, and every run when the process crashes or ends.
"""

from collections import defaultdict
from collections.abc import Mapping

from saga_engine.decider.evolve import evolve
from saga_engine.decider.run import Run
from saga_engine.store.event_data import deserialize_event
from saga_engine.store.runs import StoredRun
from saga_engine.telemetry.events import TelemetryEvent
from saga_engine.worker.loops import WorkerLoops
from simulation.memory_database import MemoryDatabase
from simulation.monitor import Monitor
from simulation.partition_model import DETACHED, DROPPED
from simulation.process import SimulatedProcess
from simulation.rows import Row, stored_events_of

JOURNALS = ("journal", f"{DETACHED} journal", f"{DROPPED} journal")
"""The journal, and what was in partitions that were dropped."""


class JournalFolds:
    """The run after each row of its journal; each row is applied once, for all workers."""

    def __init__(self, engine_db: MemoryDatabase) -> None:
        self._engine_db = engine_db
        self._folds: defaultdict[str, list[Run | None]] = defaultdict(list)

    def at(self, run_id: str, revision: int) -> Run | None:
        """
        The run at a revision; None if its journal has no such row.

        Raises:
            AssertionError, LookupError: an event before it is missing.
        """
        folds = self._folds[run_id]
        while len(folds) < revision:
            row = self._row(run_id, len(folds) + 1)
            if row is None:
                return None
            run = folds[-1] if folds else None
            for each in stored_events_of(row):
                run = evolve(run, deserialize_event(each.type, each.data))
            folds.append(run)
        return folds[revision - 1]

    def _row(self, run_id: str, revision: int) -> Row | None:
        found = (self._engine_db.rows[table].get((run_id, revision)) for table in JOURNALS)
        return next(filter(None, found), None)


class HeldRuns:
    """Compares the runs in the cache of one worker with their journals, from `watch` on."""

    def __init__(self, folds: JournalFolds, monitor: Monitor, process: SimulatedProcess) -> None:
        self._folds = folds
        self._monitor = monitor
        self._process = process
        self._held: Mapping[str, StoredRun] = {}
        process.on_exit(self._compare_all)

    def watch(self, worker_loops: WorkerLoops) -> None:
        """Compare what this worker remembers. `RunCache.find` would count as a use of the runs."""
        self._held = worker_loops._transactions._cache._runs  # noqa: SLF001 - it has no reader

    def on_event(self, event: TelemetryEvent) -> None:
        """Compare the run of an event: a worker emits it after the commit, before it goes on."""
        stored = self._held.get(getattr(event, "run_id", ""))
        if stored is not None:
            self._compare(stored)

    def _compare_all(self) -> None:
        for stored in self._held.values():
            self._compare(stored)

    def _compare(self, stored: StoredRun) -> None:
        run_id = stored.run.run_id
        try:
            is_fold = self._folds.at(run_id, stored.revision) == stored.run
        except (AssertionError, LookupError):  # the journal is damaged: the final checks report it
            return
        if not is_fold:
            self._monitor.record_violation(
                "P5",
                f"{self._process.name} holds run {run_id} otherwise than its journal says at"
                f" revision {stored.revision}",
            )
