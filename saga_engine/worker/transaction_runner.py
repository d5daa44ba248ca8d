"""
Runs one transaction of a batch: decide, append, publish; and remembers the runs.

Usually the transaction is a single statement, which commits alone. If another worker has decided
about a run first, the transaction has lost that run: `BatchRunner` decides its work items again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from saga_engine.backoff import Backoff
from saga_engine.errors import (
    SchemaMismatch,
    SerializationFailure,
    StoreLockTimeout,
    StoreUnavailable,
)
from saga_engine.settings import Settings
from saga_engine.store.batch_append import AppendResult, BatchAppend
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
from saga_engine.worker.database_clock import DatabaseClock
from saga_engine.worker.emit import emit_committed
from saga_engine.worker.flush import RunsChanged, flush_changes
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.periodic import MAX_RETRY_DELAY
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.run_cache import RunCache
from saga_engine.worker.work_item import StatusQuery, WorkBatch, WorkItem

DATABASE_UNAVAILABLE = (StoreUnavailable, SchemaMismatch)
"""What is retried without end: no database, or one whose schema is not migrated yet."""

MAX_RACES = 20
"""
How often a batch is repeated at once because other workers have changed its runs. After that it is
halved, and a single entry waits a little before it is tried again.
"""

_BACKOFF = Backoff(0.05, MAX_RETRY_DELAY)
"""Seconds between two attempts of a batch."""

MAX_FIXED_DELAY = 1.0
"""
Half of each delay, up to so many seconds, is always waited. A transaction that succeeds ends the
rest: it shows that the database is available, not that it accepts this batch.
"""

BatchOperation = Callable[[StoreTransaction, BatchTransaction], Awaitable[int | None]]
QueryResult = TypeVar("QueryResult")


@dataclass(frozen=True, slots=True)
class CommittedBatch:
    """
    What became of a batch that was committed.

    `lost_run_ids` are the runs that another worker has decided first, `needing_care` what has to be
    processed carefully, `unanswered` the status queries that wait for it.
    """

    trigger_count: int
    lost_run_ids: Collection[str]
    needing_care: Sequence[WorkItem]
    unanswered: Sequence[StatusQuery] = ()

    def remaining_of(self, work_batch: WorkBatch) -> WorkBatch:
        """What is not processed yet, in the order in which it came."""
        needing_care = {id(each) for each in self.needing_care}
        work_items = [
            each
            for each in work_batch.work_items
            if each.run_id in self.lost_run_ids or id(each) in needing_care
        ]
        return WorkBatch(work_items, status_queries=list(self.unanswered))


@dataclass(slots=True, kw_only=True)
class _Execution:
    """How far a transaction came; its `epoch` is set once it is committed."""

    changes: ChangeSet | None = None
    trigger_count: int = 0
    decided_at: float = 0.0
    result: AppendResult | None = None
    epoch: int | None = None


def _may_be_committed(error: BaseException) -> bool:
    """Whether a transaction that ended with this error may have been committed."""
    return isinstance(error, StoreUnavailable) and not isinstance(
        error, StoreLockTimeout | SerializationFailure
    )


def too_many_races() -> StoreUnavailable:
    """The error after MAX_RACES races."""
    return StoreUnavailable(
        f"Other workers have changed the runs of a batch {MAX_RACES} times. It is tried later."
    )


class TransactionRunner:
    """
    Turns work items into committed decisions, and those into published messages.

    `clock` is the time of the database, `admission` the slots of new runs.
    """

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
        self._cache = RunCache(settings.run_cache_bytes)
        self._last_outbox_id: int | None = None
        self.admission = Admission(registry, settings)
        self.clock = DatabaseClock()

    async def run(self, operation: BatchOperation) -> int:
        """
        Run one transaction and publish what it decided; returns what *operation* returns.

        It is repeated at once if other workers have changed its runs.

        Raises:
            StoreUnavailable: it is not known whether the commit succeeded.
            StoreRefused: nothing was written.
        """
        for _ in range(MAX_RACES):
            with suppress(RunsChanged):
                return (await self.run_once(operation)).trigger_count
        raise too_many_races()

    async def run_once(self, operation: BatchOperation) -> CommittedBatch:
        """
        Run one transaction, without a retry.

        Raises:
            RunsChanged: other workers have changed its runs, and nothing was written.
            StoreUnavailable: it was not committed, or has appended nothing by which that is known.
            StoreRefused: as `run`.
        """
        confirmed_ids = self._outbox_publisher.take_confirmed()
        started_at, outbox_after = time.perf_counter(), self._last_outbox_id
        execution = _Execution()
        try:
            await self._execute(operation, confirmed_ids, execution)
        except BaseException as error:
            self._outbox_publisher.give_back(confirmed_ids)
            self._on_transaction_error(error)
            if isinstance(error, RunsChanged):
                self._cache.discard(error.run_ids)
            if not await self._find_outcome(execution, outbox_after, error):
                raise
        committed_at, changes, result = time.perf_counter(), execution.changes, execution.result
        assert changes is not None, "a committed transaction has a change set"
        self._on_database_reached()
        self._remember(changes, result, execution.epoch)
        await self._after_commit(changes)
        if execution.trigger_count:
            self._emit(
                BatchProcessed(
                    triggers=execution.trigger_count,
                    decide_s=execution.decided_at - started_at,
                    commit_s=committed_at - execution.decided_at,
                    publish_s=time.perf_counter() - committed_at,
                )
            )
        return CommittedBatch(
            execution.trigger_count,
            () if result is None else result.lost,
            changes.needing_care,
            changes.unanswered,
        )

    async def _execute(
        self, operation: BatchOperation, confirmed_ids: Sequence[int], execution: "_Execution"
    ) -> None:
        """Decide and write; *execution* says how far that came if it raises."""
        with self.admission.track_transaction() as admitted:
            async with self._store.batch() as tx:
                self._cache.enter(epoch := tx.epoch)
                now = self.clock.now or self.clock.observe(await tx.database_now())
                execution.changes = changes = ChangeSet(now, admitted)
                batch = BatchTransaction(
                    tx, self._registry, self.admission, self._cache, changes, self._settings
                )
                execution.trigger_count = await operation(tx, batch) or 0
                execution.decided_at = time.perf_counter()
                result = await flush_changes(tx, changes, self._settings, confirmed_ids)
            if result is not None:
                self.admission.give_back(result.lost, admitted)
        execution.result = result
        execution.epoch = epoch

    async def _find_outcome(
        self, execution: "_Execution", outbox_after: int | None, error: BaseException
    ) -> bool:
        """
        Find out whether a transaction was committed whose answer was lost, however long that takes.

        If so, what it has appended becomes its result.
        """
        changes = execution.changes
        batch = None if changes is None else changes.batch_append
        if changes is None or batch is None or not batch.runs or not _may_be_committed(error):
            return False
        execution.result = result = await self._read_outcome(batch, outbox_after, error)
        if result is not None:
            changes.adopt_outcome(result)
        return result is not None

    async def _read_outcome(
        self, batch: BatchAppend, outbox_after: int | None, error: BaseException
    ) -> AppendResult | None:
        """Read what was appended of a batch, once the database can be reached."""
        failures = 0
        while True:
            failures += 1
            await self.wait_before_retry(error, failures)
            try:
                return await self.read(lambda tx: tx.read_outcome(batch, outbox_after=outbox_after))
            except DATABASE_UNAVAILABLE as next_error:
                error = next_error

    def _remember(self, changes: ChangeSet, result: AppendResult | None, epoch: int | None) -> None:
        """Keep the runs as they are now, and forget those that were lost."""
        lost: Collection[str] = ()
        if result is not None:
            lost = result.lost
            self.clock.observe(result.now)
            self._last_outbox_id = max(
                (each.id for each in result.outbox), default=self._last_outbox_id
            )
        for run_id, stored in changes.runs.items():
            if run_id not in lost:
                self._cache.keep(stored, epoch)
        self._cache.discard(lost)

    async def read(
        self, query: Callable[[StoreTransaction], Awaitable[QueryResult]]
    ) -> QueryResult:
        """
        Read, each statement on its own; returns what *query* returns.

        Raises:
            StoreUnavailable: the query could not be answered.
        """
        try:
            async with self._store.batch() as tx:
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
        """
        Pause admission's measurements if the database is unavailable, and trust no memory of it.

        Whether the transaction was committed is unknown, and after a failover the database may be
        behind what this worker remembers.
        """
        if isinstance(error, DATABASE_UNAVAILABLE) and not isinstance(error, StoreLockTimeout):
            self.admission.connection_lost()
            self._cache.clear()
            self.clock.forget()

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

    async def find_locked(self, run_ids: Collection[str]) -> set[str]:
        """
        Find which of these runs another transaction has locked.

        Raises:
            StoreUnavailable: as `run`.
        """
        return await self.read(lambda tx: tx.locked_runs(run_ids)) if run_ids else set()

    async def wait_before_retry(self, error: BaseException, failures: int) -> None:
        """
        Wait with backoff, from some time on only until the database has answered a transaction.

        Args:
            error: why the database is unavailable.
            failures: how often that happened, from 1.
        """
        self._emit(DatabaseUnavailable(operation=Operation.BATCH, problem=str(error)))
        max_delay = _BACKOFF.delay(failures)
        min_delay = min(MAX_FIXED_DELAY, max_delay / 2)
        database_reached = self._database_reached
        await asyncio.sleep(min_delay)
        await wait_for_event(database_reached, max_delay - min_delay)
