"""
Runs one batch from start to finish: decide, append, publish.

Deliveries, timers and pending requests all come through here. A `BatchRunner` retries a batch until
it is committed, and changes three things between the attempts: which work items are left, how the
batch treats locked rows, and how large it is.

**Races.** No run is locked while it is decided. If another worker has decided about a run first,
the batch loses that run: it is read again, and its work items are decided again. The other runs of
the batch are committed. So are starts that conflict with something; they are processed carefully.

**Locks.** The first attempt waits for rows that another transaction has locked, at most for
`database_lock_timeout`. After a lock timeout the batch takes the next `LockStrategy`: skip the runs
that are locked, then defer everything. If even that meets a lock, a whole table is locked: the
runner waits and starts again with the first strategy. Any other failure also leads back to it.

**Size.** After a timeout it is unknown whether the database is unavailable or overloaded, so each
retry halves the batch. A batch that fails for another reason, or that would defer everything, is
halved too: bisecting isolates the work item that is the cause. That one is then deferred, or
dead-lettered if the database refuses it. During an outage the deliveries stay unacknowledged.
"""

from collections.abc import Collection, Iterable
from enum import Enum
from functools import partial

from saga_engine.errors import StoreLockTimeout
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import Delivery
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.telemetry.events import (
    Emitter,
    InternalErrorCaught,
    describe_error,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.worker.batch_transaction import BatchMode, BatchTransaction
from saga_engine.worker.crash_suspects import SuspectsInBatch
from saga_engine.worker.flush import RunsChanged
from saga_engine.worker.transaction_runner import (
    DATABASE_UNAVAILABLE,
    MAX_RACES,
    TransactionRunner,
    too_many_races,
)
from saga_engine.worker.work_item import (
    DeadLetterItem,
    StatusQuery,
    UnreadableRequest,
    WorkBatch,
    WorkBatchEntry,
    WorkItem,
    has_signed_token,
    is_timer,
)


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
    """Runs batches until they are committed."""

    def __init__(self, transactions: TransactionRunner, emit: Emitter) -> None:
        self._transactions = transactions
        self._emit = emit

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
        races = 0
        while True:
            if _entry_count(work_batch) > 1 and (
                strategy is LockStrategy.DEFER_ALL or failures > earlier_failures
            ):
                return await self._bisect(work_batch, failures)
            try:
                work_batch = await self._run_once(work_batch, strategy, races)
            except DATABASE_UNAVAILABLE as error:
                strategy = strategy.after_failure(error)
                if strategy is LockStrategy.WAIT_FOR_LOCKS:
                    failures += 1
                    await self._transactions.wait_before_retry(error, failures)
            except Exception as error:  # noqa: BLE001 - refused data or a bug, isolated below
                return await self._isolate_failure(work_batch, error)
            else:
                if not _entry_count(work_batch):
                    return []
                races += 1

    async def _run_once(
        self, work_batch: WorkBatch, strategy: LockStrategy, races: int
    ) -> WorkBatch:
        """
        Run one transaction; returns what is left to be processed.

        Args:
            races: how many attempts have left something. After the first one starts are processed
                carefully, and a timer that was moved meanwhile is left alone.

        Raises:
            StoreUnavailable: other workers were faster MAX_RACES times. Each time one of them has
                made progress, so a smaller batch, or the same one after a delay, will succeed.
        """
        mode = await self._batch_mode(work_batch, strategy, after_race=races > 0)
        try:
            committed = await self._transactions.run_once(
                partial(_process, work_batch, strategy, mode)
            )
            remaining = committed.remaining_of(work_batch)
        except RunsChanged:
            remaining = work_batch
        if _entry_count(remaining) and races and races % MAX_RACES == 0:
            raise too_many_races()
        return remaining

    async def _batch_mode(
        self, work_batch: WorkBatch, strategy: LockStrategy, *, after_race: bool
    ) -> BatchMode:
        """How this attempt is processed; to skip locked runs, they are looked for first."""
        locked_elsewhere: Collection[str] = ()
        if strategy is LockStrategy.SKIP_LOCKED:
            locked_elsewhere = await self._transactions.find_locked(
                {each.run_id for each in work_batch.work_items}
            )
        return BatchMode(
            careful=after_race, locked_elsewhere=locked_elsewhere, lost_race=after_race
        )

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
        """
        Dead-letter the one work item that cannot be processed.

        Without a delivery it is dropped; a run whose timer it is backs off.
        """
        problem = describe_error(error)
        for work_item in work_batch.work_items:
            if is_timer(work_item):
                run_id = work_item.run_id
                self._emit(
                    InternalErrorCaught(
                        operation=Operation.DUE_RUNS, problem=problem, run_id=run_id
                    )
                )
                await self._transactions.run(partial(_postpone, run_id))
                return []
        self._emit(InternalErrorCaught(operation=Operation.BATCH, problem=problem))
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
    mode: BatchMode,
    _tx: StoreTransaction,
    batch: BatchTransaction,
) -> int:
    count = len(work_batch.work_items)
    batch.delete_unroutable(work_batch.work_items)
    if strategy is LockStrategy.DEFER_ALL:
        for work_item in work_batch.work_items:
            batch.defer(work_item)
        work_batch = WorkBatch(
            status_queries=work_batch.status_queries, dead_letters=work_batch.dead_letters
        )
    await batch.process(work_batch, mode)
    return count


async def _postpone(run_id: str, _tx: StoreTransaction, batch: BatchTransaction) -> None:
    batch.postpone(run_id)


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
