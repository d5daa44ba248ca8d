"""
Processes due runs: retries, timeouts and deadlines whose time has come.

A due run is claimed for the time of a lease and then takes the path of every work item. If this
worker does not decide it within the lease, it is due again, for any worker.
"""

from saga_engine.decider.triggers import WakeUp
from saga_engine.settings import Settings
from saga_engine.store.interfaces import Store
from saga_engine.worker.adaptive_limit import AdaptiveLimit
from saga_engine.worker.batch_runner import BatchRunner
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.timer_claims import claim_lease
from saga_engine.worker.transaction_runner import TransactionRunner
from saga_engine.worker.work_item import WorkBatch, WorkItem


class DueRunDuties:
    """Processes the due runs of the definitions that this worker has loaded."""

    def __init__(
        self,
        store: Store,
        registry: SagaRegistry,
        transactions: TransactionRunner,
        batch_runner: BatchRunner,
        outbox_publisher: OutboxPublisher,
        settings: Settings,
    ) -> None:
        self._store = store
        self._registry = registry
        self._transactions = transactions
        self._batch_runner = batch_runner
        self._outbox_publisher = outbox_publisher
        self._lease = claim_lease(settings)
        self._limit = AdaptiveLimit(settings.batch_size)

    async def process(self) -> bool:
        """
        Process a batch of due runs; whether there were any.

        None is processed while the broker is unavailable: then it is unknown whether a command was
        answered, and the next command could not be published. Waiting costs each run one attempt
        instead of all of them.
        """
        if self._outbox_publisher.blocked:
            return False
        run_ids: list[str] = []
        await self._limit.adapt(self._claim(run_ids))
        if run_ids:
            timers = [WorkItem(run_id=run_id, trigger=WakeUp()) for run_id in run_ids]
            await self._batch_runner.process(WorkBatch(timers))
        return bool(run_ids)

    async def _claim(self, run_ids: list[str]) -> int:
        """Claim due runs and add their ids; crash suspects are processed alone."""
        async with self._store.transaction() as tx:
            due = await tx.claim_due_runs(
                self._registry.definition_ids,
                self._limit.size,
                lease=self._lease,
                excluding=self._registry.suspect_run_ids,
            )
        if due.now is not None:
            self._transactions.clock.observe(due.now)
        run_ids.extend(due.run_ids)
        return len(due.run_ids)
