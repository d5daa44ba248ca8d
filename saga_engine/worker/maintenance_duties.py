"""Maintains the tables: heartbeat, gauges, partitions, retention and token keys."""

from collections import Counter
from datetime import timedelta

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.settings import Settings
from saga_engine.store import (
    backlog_counts,
)
from saga_engine.store.definitions import presence_policy
from saga_engine.store.interfaces import Store, StoreTransaction
from saga_engine.store.partitions import LockRetry, ReaderReport
from saga_engine.telemetry.events import (
    BacklogCounted,
    Emitter,
    ReaderPassedOver,
    RetentionMeasured,
)
from saga_engine.worker import decode_pending
from saga_engine.worker.batch_transaction import BatchTransaction
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.transaction_runner import TransactionRunner
from saga_engine.worker.work_item import UnreadableRequest, WorkBatch


class MaintenanceDuties:
    """The duties that concern no run in particular."""

    def __init__(
        self,
        store: Store,
        registry: SagaRegistry,
        transactions: TransactionRunner,
        outbox_publisher: OutboxPublisher,
        settings: Settings,
        emit: Emitter,
    ) -> None:
        self._store = store
        self._registry = registry
        self._transactions = transactions
        self._outbox_publisher = outbox_publisher
        self._settings = settings
        self._emit = emit
        self._body_limits = decode_pending.body_limits(settings)
        self._presence_times = presence_policy(settings)

    async def refresh(self) -> bool:
        """Read the token keys, count the backlog for the gauges, and delete old crash suspects."""
        async with self._store.transaction() as tx:
            self._outbox_publisher.token_keys = await tx.token_keys()
        if self._registry.suspect_run_ids:
            async with self._store.transaction() as tx:
                await tx.delete_expired_suspects()
        async with self._store.transaction() as tx:
            counts = await tx.count_backlog(self._settings.max_gauge_count)
            self._emit(_backlog_event(counts, len(self._registry.suspect_run_ids)))
        return False

    async def refresh_presence(self) -> bool:
        """Record which definitions this worker has loaded; the record expires."""
        async with self._store.transaction() as tx:
            await tx.refresh_presence(self._registry.definition_ids, self._presence_times)
        return False

    async def maintain_partitions(self) -> bool:
        """Create the partitions of coming months, and drop months that are past their retention."""
        settings = self._settings
        days = settings.run_retention_days
        done = await self._store.maintain_partitions(
            # A month stays as long as starts with run ids of it are accepted.
            retention_days=max(days, settings.max_run_id_age_days + 1) if days else 0,
            months_ahead=settings.partition_months_ahead,
            lock_retry=LockRetry(settings.partition_lock_timeout, settings.partition_lock_attempts),
            retention_hold=settings.retention_hold,
        )
        if done.readers is not None:
            self._report_readers(done.readers)
        return False

    def _report_readers(self, readers: ReaderReport) -> None:
        """Emit which projections and feeds hold an expired month, or have missed one."""
        for each in readers.passed_over:
            self._emit(ReaderPassedOver(kind=each.kind, name=each.name, position=each.position))
        held = {(str(each.kind), each.name): each.unmoved_s for each in readers.held_by}
        incomplete = frozenset((str(kind), name) for kind, name in readers.incomplete)
        self._emit(RetentionMeasured(held_s=held, incomplete=incomplete))

    async def _dead_letter_unknown_starts(
        self, tx: StoreTransaction, batch: BatchTransaction
    ) -> int:
        """Dead-letter starts whose definition no worker has loaded within max_run_id_age_days."""
        days = self._settings.max_run_id_age_days
        requests = await tx.take_stranded_starts(
            timedelta(days=days), self._settings.batch_size, self._body_limits
        )
        text = (
            f"No worker has loaded the definition of this start within {days} days"
            " (max_run_id_age_days). Load it in a worker, then start again."
        )
        decoded_requests = [
            decode_pending.decode_request(request, self._settings) for request in requests
        ]
        work_items = [
            each.work_item if isinstance(each, UnreadableRequest) else each
            for each in decoded_requests
        ]
        unreadable = [
            UnreadableRequest(each, DeadLetterReason.UNKNOWN_SAGA, text) for each in work_items
        ]
        if unreadable:
            await batch.process(WorkBatch(unreadable=unreadable))
        return len(requests)

    async def purge_expired(self) -> bool:
        """Delete dead letters and audit records past their retention, and stranded starts."""
        settings = self._settings
        await self._transactions.run(self._dead_letter_unknown_starts)
        days = {
            "dead_letter_days": settings.dead_letter_retention_days,
            "audit_days": settings.audit_retention_days,
        }
        await self._store.purge_expired(**days)
        return False


def _backlog_event(counts: backlog_counts.BacklogCounts, suspect_count: int) -> BacklogCounted:
    dead_letters_by_reason: Counter[str] = Counter()
    for (_, reason), count in counts.dead_letters.items():
        dead_letters_by_reason[reason] += count
    return BacklogCounted(
        runs={(saga, status.value): count for (saga, status), count in counts.runs.items()},
        oldest_run_age_s=counts.oldest_run_age,
        incidents_open={
            (saga, cause.value, step): count
            for (saga, cause, step), count in counts.open_incidents.items()
        },
        dead_letters_open=dead_letters_by_reason,
        messages_awaiting_definition=counts.awaiting_definition,
        starts_awaiting_admission=counts.starts_waiting,
        starts_stranded=counts.starts_stranded,
        crash_suspects=suspect_count,
        outbox_pending=counts.outbox_pending,
        outbox_oldest_age_s=counts.outbox_oldest_age,
        timers_pending=counts.timers_pending,
        timer_overdue_s=counts.timer_overdue,
        runs_in_default_partition=counts.runs_unpartitioned,
    )
