"""What is checked when a simulation is quiescent: every run, every accepted start, dead letters."""

from collections.abc import Collection, Mapping, Sequence

from saga_engine.store.runs import StoredRun
from simulation.client import dead_lettered_ids, malformed_message
from simulation.memory_database import MemoryDatabase
from simulation.memory_store import MemoryStore
from simulation.monitor import Monitor
from simulation.operator import audit_violations
from simulation.partition_model import DETACHED, DROPPED, PARTITIONED_TABLES
from simulation.process import SimulatedProcess
from simulation.promises import promise_violations, run_records
from simulation.run_model import readable_runs
from simulation.workload import Workload


class FinalChecks:
    """Adds violations to the monitor."""

    def __init__(
        self, engine_db: MemoryDatabase, monitor: Monitor, workloads: Sequence[Workload]
    ) -> None:
        self._engine_db = engine_db
        self._monitor = monitor
        self._workloads = workloads

    async def read_runs(self, process: SimulatedProcess) -> Mapping[str, StoredRun]:
        """Read every run including the runs of dropped partitions."""
        for table in PARTITIONED_TABLES:
            for state in (DETACHED, DROPPED):
                self._engine_db.rows[table] |= self._engine_db.rows[f"{state} {table}"]
        async with MemoryStore(self._engine_db, process).transaction() as tx, tx.statement():
            found = readable_runs(tx, self._engine_db.rows["run"])
            return {stored.run.run_id: stored for stored in found}

    def check_runs(self, stored_runs: Mapping[str, StoredRun], *, expected: int) -> None:
        """Check P1 to P5 of each run, the accepted starts, and the number of runs."""
        monitor, open_incidents = self._monitor, self.open_incident_runs()
        for record in run_records(self._engine_db, monitor.effects, self._workloads):
            stored = stored_runs.get(record.row["run_id"])
            if stored is None:
                damaged = f"the journal of run {record.row['run_id']} cannot be replayed"
                monitor.record_violation("P5", damaged)
            else:
                monitor.violations.extend(promise_violations(record, stored, open_incidents))
        monitor.violations.extend(audit_violations(self._engine_db))
        for run_id, version in monitor.accepted_versions.items():
            started = stored_runs[run_id].run.version if run_id in stored_runs else None
            if started is None or version not in (None, started):
                monitor.record_violation(
                    "P1", f"run {run_id} was accepted as version {version} and is {started}"
                )
        if len(stored_runs) != expected:
            monitor.record_violation("P1", f"{len(stored_runs)} of {expected} runs were started")

    def check_dead_letters(self, exchanges: Collection[str]) -> None:
        """Check that the malformed message of each exchange was dead-lettered."""
        malformed = {malformed_message(name).message_id for name in exchanges}
        if not malformed <= dead_lettered_ids(self._engine_db):
            self._monitor.record_violation("P7", "a malformed message was not dead-lettered")

    def open_incident_runs(self) -> set[str]:
        """The runs that have an open incident."""
        return {
            run_id
            for (run_id, _), row in self._engine_db.rows["incident"].items()
            if row["resolved_at"] is None
        }
