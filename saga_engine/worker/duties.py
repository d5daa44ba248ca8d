"""
The periodic duties of a worker: everything it does besides processing deliveries.

A duty does a bounded piece of work and returns whether there was any; `periodic` calls it again,
immediately after a call that found work and otherwise after its interval. Every worker performs
every duty. Rows are claimed with SKIP LOCKED, so workers share the work without coordination.

    pending_work      due runs, then pending requests              here, due_run_duties and
                                                                   pending_request_duties
    unroutable        commands that no queue is bound for          outbox_duties
    outbox_resend     commands that were never confirmed           outbox_duties
    outbox_cleanup    outbox rows that are confirmed               outbox_duties
    crash_suspects    runs whose call has ended a worker           suspect_duties
    heartbeat         which definitions this worker has            maintenance_duties
    maintenance       token keys, gauges, old crash suspects       maintenance_duties
    partitions        partitions of coming and of expired months   maintenance_duties
    purge             dead letters and audit records past their retention, stranded starts
                                                                   maintenance_duties
"""

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.settings import Settings
from saga_engine.store.interfaces import Store, StoreTransaction
from saga_engine.telemetry.events import Emitter
from saga_engine.telemetry.operations import Operation
from saga_engine.worker.batch_runner import BatchRunner
from saga_engine.worker.due_run_duties import DueRunDuties
from saga_engine.worker.maintenance_duties import MaintenanceDuties
from saga_engine.worker.outbox_duties import OutboxDuties
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.pending_request_duties import PendingRequestDuties
from saga_engine.worker.periodic import Duty
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.suspect_duties import SuspectDuties
from saga_engine.worker.transaction_runner import TransactionRunner


@dataclass(frozen=True, slots=True)
class ScheduledDuty:
    """A duty, its name in logs and metrics, and the seconds between two calls without work."""

    operation: Operation
    duty: Duty
    interval: float


class Duties:
    """The periodic duties of one worker."""

    def __init__(
        self,
        store: Store,
        registry: SagaRegistry,
        transactions: TransactionRunner,
        outbox_publisher: OutboxPublisher,
        settings: Settings,
        emit: Emitter,
    ) -> None:
        self._registry = registry
        self._transactions = transactions
        batch_runner = BatchRunner(transactions, emit)
        self._outbox_publisher = outbox_publisher
        self._settings = settings
        self.due_runs = DueRunDuties(
            store, registry, transactions, batch_runner, outbox_publisher, settings
        )
        self.pending_requests = PendingRequestDuties(store, registry, transactions, settings, emit)
        self.outbox = OutboxDuties(store, transactions, batch_runner, outbox_publisher, settings)
        self.suspects = SuspectDuties(store, registry, transactions, settings, emit)
        self.maintenance = MaintenanceDuties(
            store, registry, transactions, outbox_publisher, settings, emit
        )

    def schedule(self) -> Sequence[ScheduledDuty]:
        """Every duty with its interval."""
        settings, outbox, maintenance = self._settings, self.outbox, self.maintenance
        poll_interval, resend_interval = settings.poll_interval, settings.outbox_resend_after / 4
        maintenance_interval = settings.maintenance_interval
        return (
            ScheduledDuty(Operation.PENDING_WORK, self.process_due_and_pending, poll_interval),
            ScheduledDuty(Operation.UNROUTABLE, outbox.process_unroutable, poll_interval),
            ScheduledDuty(Operation.OUTBOX_RESEND, outbox.resend_unconfirmed, resend_interval),
            ScheduledDuty(
                Operation.OUTBOX_CLEANUP, outbox.delete_confirmed, settings.outbox_cleanup_interval
            ),
            ScheduledDuty(Operation.CRASH_SUSPECTS, self.suspects.process_all, resend_interval),
            ScheduledDuty(
                Operation.HEARTBEAT,
                maintenance.refresh_presence,
                settings.worker_heartbeat_interval,
            ),
            ScheduledDuty(Operation.MAINTENANCE, maintenance.refresh, maintenance_interval),
            ScheduledDuty(
                Operation.PARTITIONS, maintenance.maintain_partitions, maintenance_interval
            ),
            ScheduledDuty(Operation.PURGE, maintenance.purge_expired, maintenance_interval),
        )

    async def process_due_and_pending(self) -> bool:
        """
        Process due runs, then pending requests.

        Each has its own transaction, so that timers fire even if the requests cannot be processed.
        Most of the time there is neither; one short transaction finds that out.
        """
        if self._outbox_publisher.blocked:
            self._transactions.admission.connection_lost()  # a successful read restores it
        has_due_runs, has_requests = await self._transactions.read(self._check_for_work)
        processed_runs = has_due_runs and await self.due_runs.process()
        return (has_requests and await self.pending_requests.process()) or processed_runs

    async def _check_for_work(self, tx: StoreTransaction) -> tuple[bool, bool]:
        """
        Whether runs are due, and whether there may be pending requests.

        While runs are due the table of requests is not read: another transaction may have locked
        it.
        """
        definition_ids = self._registry.definition_ids
        is_due = bool(await tx.due_run_ids(definition_ids, 1))
        return is_due, is_due or await tx.has_work(self._registry.saga_names, definition_ids)
