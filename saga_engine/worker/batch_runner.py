"""
Runs one batch from start to finish: transaction, commit, publish.

Deliveries, timers and pending requests all come through here. A `BatchRunner` retries a batch until
it is committed, and changes two things between the attempts: how the batch treats locked rows, and
how large it is.

**Locks.** The first attempt waits for rows that another transaction has locked, at most for
`database_lock_timeout`. After a lock timeout the batch takes the next `LockStrategy`: skip the runs
that are locked, then defer everything. If even that meets a lock, a whole table is locked: the
runner waits and starts again with the first strategy. Any other failure also leads back to it.

**Size.** After a timeout it is unknown whether the database is unavailable or overloaded, so each
retry halves the batch. A batch that fails for another reason, or that would defer everything, is
halved too: bisecting isolates the work item that is the cause. That one is then deferred, or
dead-lettered if the database refuses it. During an outage the deliveries stay unacknowledged.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from functools import partial
from typing import TypeVar

from saga_engine.backoff import Backoff
from saga_engine.errors import SchemaMismatch, StoreLockTimeout, StoreUnavailable
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import Delivery
from saga_engine.settings import Settings
from saga_engine.store.interfaces import Store, StoreTransaction
from saga_engine.telemetry.events import (
    BatchProcessed,
    DatabaseUnavailable,
    Emitter,
    InternalErrorCaught,
    describe_error,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event
from saga_engine.worker.admission import Admission
from saga_engine.worker.batch_transaction import BatchTransaction
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.crash_suspects import SuspectsInBatch
from saga_engine.worker.emit import emit_committed
from saga_engine.worker.flush import flush_changes
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.periodic import MAX_RETRY_DELAY
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.work_item import (
    DeadLetterItem,
    StatusQuery,
    UnreadableRequest,
    WorkBatch,
    WorkBatchEntry,
    WorkItem,
    has_signed_token,
)

_BACKOFF = Backoff(0.05, MAX_RETRY_DELAY)
"""Seconds between two attempts of a batch."""

MAX_FIXED_DELAY = 1.0
"""
Half of each delay, up to so many seconds, is always waited. A transaction that succeeds ends the
rest: it shows that the database is available, not that it accepts this batch.
"""

DATABASE_UNAVAILABLE = (StoreUnavailable, SchemaMismatch)
"""What is retried without end: no database, or one whose schema is not migrated yet."""

BatchOperation = Callable[[StoreTransaction, BatchTransaction], Awaitable[int | None]]
QueryResult = TypeVar("QueryResult")


class LockStrategy(Enum):
    """How an attempt treats rows that another transaction has locked."""

    WAIT_FOR_LOCKS = "wait for locks"
    SKIP_LOCKED = "skip locked"  # what is for a locked run is deferred
    DEFER_ALL = "defer all"  # no run and no key is touched; work items are only stored

    def after_failure(self, error: Exception) -> "LockStrategy":
        """The strategy of the next attempt: a later one after a lock timeout only."""
        if not isinstance(error, StoreLockTimeout):
            return LockStrategy.WAIT_FOR_LOCKS
        strategies = list(LockStrategy)
        return strategies[(strategies.index(self) + 1) % len(strategies)]


class BatchRunner:
    """Turns work items into committed decisions, and those into published messages."""

    def __init__(
        self,
        store: Store,
        registry: SagaRegistry,
        outbox_publisher: OutboxPublisher,
        settings: Settings,
        emit: Emitter,
    ) -> None:
        self._store = store
        self._registry = registry
        self._outbox_publisher = outbox_publisher
        self._settings = settings
        self._emit = emit
        self._database_reached = asyncio.Event()
        self.admission = Admission(registry, settings)

    async def process(self, work_batch: WorkBatch, failures: int = 0) -> list[Delivery]:
        """
        Process everything in *work_batch*, however long the database is unavailable.

        Args:
            failures: how often it failed before, as part of a larger batch.

        Returns:
            The deliveries that could not even be dead-lettered. All others are committed and can
            be acknowledged; these must not be, and go to another worker when this one stops.
        """
        strategy, earlier_failures = LockStrategy.WAIT_FOR_LOCKS, failures
        while True:
            if _entry_count(work_batch) > 1 and (
                strategy is LockStrategy.DEFER_ALL or failures > earlier_failures
            ):
                return await self._bisect(work_batch, failures)
            try:
                await self.run_transaction(partial(_process, work_batch, strategy))
            except DATABASE_UNAVAILABLE as error:
                strategy = strategy.after_failure(error)
                if strategy is not LockStrategy.WAIT_FOR_LOCKS:
                    continue
                self._emit(DatabaseUnavailable(operation=Operation.BATCH, problem=str(error)))
                failures += 1
                await self._wait_before_retry(failures)
            except Exception as error:  # noqa: BLE001 - refused data or a bug, isolated below
                return await self._isolate_failure(work_batch, error)
            else:
                return []

    async def run_transaction(self, operation: BatchOperation) -> int:
        """
        Run one transaction and publish what it decided; returns what *operation* returns.

        Raises:
            StoreUnavailable: it is not known whether the commit succeeded.
            StoreRefused: nothing was written.
        """
        confirmed_ids = self._outbox_publisher.take_confirmed()
        started_at = time.perf_counter()
        try:
            with self.admission.track_transaction() as admitted:
                async with self._store.transaction() as tx:
                    changes = ChangeSet(await tx.database_now(), admitted)
                    batch = BatchTransaction(
                        tx, self._registry, self.admission, changes, self._settings
                    )
                    trigger_count = await operation(tx, batch)
                    await flush_changes(tx, changes, self._settings)
                    await tx.delete_commands(confirmed_ids)
                    decided_at = time.perf_counter()
        except BaseException as error:
            self._outbox_publisher.give_back(confirmed_ids)
            self._on_transaction_error(error)
            raise
        committed_at = time.perf_counter()
        self._on_database_reached()
        await self._after_commit(changes)
        if trigger_count:
            self._emit(
                BatchProcessed(
                    triggers=trigger_count,
                    decide_s=decided_at - started_at,
                    commit_s=committed_at - decided_at,
                    publish_s=time.perf_counter() - committed_at,
                )
            )
        return trigger_count or 0

    async def read(
        self, query: Callable[[StoreTransaction], Awaitable[QueryResult]]
    ) -> QueryResult:
        """
        Run one transaction that only reads; returns what *query* returns.

        Raises:
            StoreUnavailable: the query could not be answered.
        """
        try:
            async with self._store.transaction() as tx:
                result = await query(tx)
        except BaseException as error:
            self._on_transaction_error(error)
            raise
        self._on_database_reached()
        return result

    def _on_database_reached(self) -> None:
        """The database has answered: wake the batches that wait for it."""
        self._database_reached.set()
        self._database_reached = asyncio.Event()
        self.admission.connection_restored()

    def _on_transaction_error(self, error: BaseException) -> None:
        """Pause admission's measurements if the database is unavailable."""
        if isinstance(error, DATABASE_UNAVAILABLE) and not isinstance(error, StoreLockTimeout):
            self.admission.connection_lost()

    async def _after_commit(self, changes: ChangeSet) -> None:
        """Emit, measure and publish; a bug here must not make the commit look like a failure."""
        try:
            emit_committed(self._emit, changes)
            self.admission.adapt(changes)
            await self._outbox_publisher.publish_batch(changes.after_commit)
        except Exception as error:  # noqa: BLE001 - reported; commands are resent, clients ask again
            self._emit(
                InternalErrorCaught(operation=Operation.PUBLISH, problem=describe_error(error))
            )

    async def _wait_before_retry(self, failures: int) -> None:
        """Wait with backoff, or until the database has answered another transaction."""
        database_reached = self._database_reached
        max_delay = _BACKOFF.delay(failures)
        min_delay = min(MAX_FIXED_DELAY, max_delay / 2)
        await asyncio.sleep(min_delay)
        await wait_for_event(database_reached, max_delay - min_delay)

    async def _bisect(self, work_batch: WorkBatch, failures: int = 0) -> list[Delivery]:
        """Process each half on its own, down to a single entry."""
        entries = _entries(work_batch)
        half = len(entries) // 2
        # When the first half is committed the database is available: the second begins at 0.
        unprocessed = await self.process(_work_batch_of(entries[:half]), failures)
        return unprocessed + await self.process(_work_batch_of(entries[half:]))

    async def _isolate_failure(self, work_batch: WorkBatch, error: Exception) -> list[Delivery]:
        """Separate what made the batch fail, or may end the worker, from the rest."""
        if isinstance(error, SuspectsInBatch):
            return await self._process_suspects_separately(work_batch, error.run_ids)
        if _entry_count(work_batch) > 1:
            return await self._bisect(work_batch)
        return await self._dead_letter(work_batch, error)

    async def _process_suspects_separately(
        self, work_batch: WorkBatch, run_ids: frozenset[str]
    ) -> list[Delivery]:
        """Process the other runs first, then each crash suspect in a batch of its own."""
        suspect_items: dict[str, list[WorkItem]] = {run_id: [] for run_id in sorted(run_ids)}
        others = []
        for entry in work_batch:
            if isinstance(entry, WorkItem) and entry.run_id in suspect_items:
                suspect_items[entry.run_id].append(entry)
            else:
                others.append(entry)
        unprocessed = await self.process(_work_batch_of(others)) if others else []
        for work_items in suspect_items.values():
            unprocessed += await self.process(WorkBatch(work_items))
        return unprocessed

    async def _dead_letter(self, work_batch: WorkBatch, error: Exception) -> list[Delivery]:
        """Dead-letter the one work item that cannot be processed; without a delivery, drop it."""
        self._emit(InternalErrorCaught(operation=Operation.BATCH, problem=describe_error(error)))
        for work_item in work_batch.work_items:
            if work_item.delivery is not None:
                dead_letter = DeadLetterItem(
                    delivery=work_item.delivery,
                    reason=DeadLetterReason.INTERNAL_ERROR,
                    detail=f"The engine could not handle it: {type(error).__name__}.",
                    run_id=work_item.run_id,
                    answer_to=work_item.answer_to,
                    signed=has_signed_token(work_item),
                )
                return await self.process(WorkBatch(dead_letters=[dead_letter]))
        return [dead_letter.delivery for dead_letter in work_batch.dead_letters]


async def _process(
    work_batch: WorkBatch,
    strategy: LockStrategy,
    _tx: StoreTransaction,
    batch: BatchTransaction,
) -> int:
    wait_for_locks = strategy is not LockStrategy.SKIP_LOCKED
    count = len(work_batch.work_items)
    if strategy is LockStrategy.DEFER_ALL:
        for work_item in work_batch.work_items:
            batch.defer(work_item)
        work_batch = WorkBatch(
            status_queries=work_batch.status_queries, dead_letters=work_batch.dead_letters
        )
    await batch.process(work_batch, wait_for_locks=wait_for_locks)
    return count


def _entry_count(work_batch: WorkBatch) -> int:
    return len(_entries(work_batch))


def _entries(work_batch: WorkBatch) -> list[WorkBatchEntry]:
    return list(work_batch)


def _work_batch_of(entries: Iterable[WorkBatchEntry]) -> WorkBatch:
    work_batch = WorkBatch()
    for entry in entries:
        match entry:
            case WorkItem():
                work_batch.work_items.append(entry)
            case StatusQuery():
                work_batch.status_queries.append(entry)
            case DeadLetterItem():
                work_batch.dead_letters.append(entry)
            case UnreadableRequest():
                work_batch.unreadable.append(entry)
    return work_batch
