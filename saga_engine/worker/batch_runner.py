"""
One batch from beginning to end: transaction, commit, publish. The engine room of the worker.

Whatever wants something done with runs (deliveries, timers, recorded requests) comes through here.
A database that is away is waited for, because a delivery in hand costs nothing; whether it is away
or only too slow for so much cannot be seen, so it is given half of it then. A batch that the
database refuses is halved until the arrival that breaks it is alone, and that one is set aside; so
is a batch that needs what somebody holds, and then that one is put by.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from saga_engine.errors import SchemaMismatch, StoreLockTimeout, StoreUnavailable
from saga_engine.protocol.message import Delivery
from saga_engine.settings import Settings
from saga_engine.store import outbox, runs
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.telemetry.events import (
    BatchProcessed,
    DatabaseUnavailable,
    Emitter,
    InternalErrorCaught,
    describe_error,
)
from saga_engine.telemetry.operations import Operation
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

MIN_RETRY_DELAY, MAX_FIXED_DELAY = 0.05, 1.0
"""
Seconds between two tries of a batch at the least: doubling from the first, up to the second. That
the database answers others shows that it is there, not that it takes this one.
"""

DATABASE_UNAVAILABLE = (StoreUnavailable, SchemaMismatch)
"""What is waited out: the database is out of reach, or not what it should be yet."""

BatchOperation = Callable[[SqlAlchemyTransaction, BatchTransaction], Awaitable[int | None]]
QueryResult = TypeVar("QueryResult")


class BatchRunner:
    """Turns work into committed decisions, and those into messages."""

    def __init__(
        self,
        database: Database,
        registry: SagaRegistry,
        outbox_publisher: OutboxPublisher,
        settings: Settings,
        emit: Emitter,
    ) -> None:
        self._database = database
        self._registry = registry
        self._outbox_publisher = outbox_publisher
        self._settings = settings
        self._emit = emit
        self._database_reached = asyncio.Event()
        self.admission = Admission(registry, settings)

    async def process(self, work_batch: WorkBatch, failures: int = 0) -> list[Delivery]:
        """
        Deal with everything in *intake*, however long the database is away.

        Args:
            failures: how often that was tried before, as part of a larger one.

        Returns:
            The deliveries that could not even be set aside. All others are committed and can be
            acknowledged; these cannot, and go to another worker when this one ends.
        """
        strategy_index, earlier_failures = 0, failures
        while True:
            strategy = _LOCK_STRATEGIES[strategy_index]
            if _entry_count(work_batch) > 1 and (
                strategy is _defer_all or failures > earlier_failures
            ):
                return await self._bisect(work_batch, failures)
            try:
                await self.run_transaction(partial(strategy, work_batch))
            except DATABASE_UNAVAILABLE as error:
                strategy_index = (
                    (strategy_index + 1) % len(_LOCK_STRATEGIES)
                    if isinstance(error, StoreLockTimeout)
                    else 0
                )
                if strategy_index:
                    continue
                self._emit(DatabaseUnavailable(operation=Operation.BATCH, problem=str(error)))
                failures += 1
                await self._wait_before_retry(failures)
            except Exception as error:  # noqa: BLE001 - refused data or a bug of ours, set aside below
                return await self._isolate_failure(work_batch, error)
            else:
                return []

    async def run_transaction(self, operation: BatchOperation) -> int:
        """
        Run one transaction and publish what it decided; the number that *work* returns.

        Raises:
            StoreUnavailable: nothing is known of the commit.
            StoreRefused: nothing was written.
        """
        confirmed_ids, self._outbox_publisher.confirmed_ids = (
            self._outbox_publisher.confirmed_ids,
            [],
        )
        started_at = time.perf_counter()
        try:
            with self.admission.track_transaction() as admitted:
                async with self._database.transaction() as tx:
                    changes = ChangeSet(await runs.database_now(tx), admitted)
                    batch = BatchTransaction(
                        tx, self._registry, self.admission, changes, self._settings
                    )
                    trigger_count = await operation(tx, batch)
                    await flush_changes(tx, changes, self._settings)
                    await outbox.delete(tx, confirmed_ids)
                    decided_at = time.perf_counter()
        except BaseException as error:
            self._outbox_publisher.confirmed_ids.extend(confirmed_ids)
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
        self, query: Callable[[SqlAlchemyTransaction], Awaitable[QueryResult]]
    ) -> QueryResult:
        """
        Run one transaction that only reads; its answer.

        Raises:
            StoreUnavailable: it could not be read.
        """
        try:
            async with self._database.transaction() as tx:
                result = await query(tx)
        except BaseException as error:
            self._on_transaction_error(error)
            raise
        self._on_database_reached()
        return result

    def _on_database_reached(self) -> None:
        """The database has answered: a batch that waits for it may try again."""
        self._database_reached.set()
        self._database_reached = asyncio.Event()
        self.admission.connection_restored()

    def _on_transaction_error(self, error: BaseException) -> None:
        """See whether a transaction failed because the database did not answer."""
        if isinstance(error, DATABASE_UNAVAILABLE) and not isinstance(error, StoreLockTimeout):
            self.admission.connection_lost()

    async def _after_commit(self, changes: ChangeSet) -> None:
        """What follows a commit; a bug in it must not look as if nothing had been committed."""
        try:
            emit_committed(self._emit, changes)
            self.admission.adapt(changes)
            await self._outbox_publisher.publish_batch(changes.after_commit)
        except Exception as error:  # noqa: BLE001 - told; commands are swept, whoever waits asks again
            self._emit(
                InternalErrorCaught(operation=Operation.PUBLISH, problem=describe_error(error))
            )

    async def _wait_before_retry(self, failures: int) -> None:
        """Wait longer each time, but not on once the database has answered another transaction."""
        database_reached = self._database_reached
        max_delay = min(MAX_RETRY_DELAY, MIN_RETRY_DELAY * 2 ** min(failures, 16))
        min_delay = min(MAX_FIXED_DELAY, max_delay / 2)
        await asyncio.sleep(min_delay)
        try:
            async with asyncio.timeout(max_delay - min_delay):
                await database_reached.wait()
        except TimeoutError:
            pass  # it is tried again

    async def _bisect(self, work_batch: WorkBatch, failures: int = 0) -> list[Delivery]:
        """One thing breaks the batch, or all are too much: halve it, in the end to a single one."""
        entries = _entries(work_batch)
        half = len(entries) // 2
        unprocessed = await self.process(_work_batch_of(entries[:half]), failures)
        return unprocessed + await self.process(_work_batch_of(entries[half:]))

    async def _isolate_failure(self, work_batch: WorkBatch, error: Exception) -> list[Delivery]:
        """Take what breaks a batch, or may end the worker, apart from the rest."""
        if isinstance(error, SuspectsInBatch):
            return await self._process_suspects_separately(work_batch, error.run_ids)
        if _entry_count(work_batch) > 1:
            return await self._bisect(work_batch)
        return await self._dead_letter(work_batch, error)

    async def _process_suspects_separately(
        self, work_batch: WorkBatch, run_ids: frozenset[str]
    ) -> list[Delivery]:
        """Take what belongs to runs that have ended a worker last, and each run alone."""
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
        """Make a dead letter of the one thing that cannot be taken."""
        self._emit(InternalErrorCaught(operation=Operation.BATCH, problem=describe_error(error)))
        for work_item in work_batch.work_items:
            if work_item.delivery is not None:
                text = f"The engine could not handle it: {type(error).__name__}."
                dead_letter = DeadLetterItem(
                    *(
                        work_item.delivery,
                        "internal_error",
                        text,
                        work_item.run_id,
                        work_item.answer_to,
                    ),
                    signed=has_signed_token(work_item),
                )
                return await self.process(WorkBatch(dead_letters=[dead_letter]))
        return [dead_letter.delivery for dead_letter in work_batch.dead_letters]


async def _process(
    work_batch: WorkBatch,
    _: SqlAlchemyTransaction,
    batch: BatchTransaction,
    *,
    wait_for_locks: bool,
) -> int:
    await batch.process(work_batch, wait_for_locks=wait_for_locks)
    return len(work_batch.work_items)


async def _defer_all(
    work_batch: WorkBatch, _: SqlAlchemyTransaction, batch: BatchTransaction
) -> int:
    for work_item in work_batch.work_items:
        batch.defer(work_item)
    others = WorkBatch(
        status_queries=work_batch.status_queries, dead_letters=work_batch.dead_letters
    )
    await batch.process(others, wait_for_locks=True)
    return len(work_batch.work_items)


_LOCK_STRATEGIES = (
    partial(_process, wait_for_locks=True),
    partial(_process, wait_for_locks=False),
    _defer_all,
)
"""
How an intake is taken while somebody else holds a row that it needs: waiting for that; past the
runs that are held; and, alone, by touching nothing but what keeps it for later. If even that is
held, a whole table is, and it begins again.
"""


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
