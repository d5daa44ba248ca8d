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

from saga_engine.errors import SchemaMismatch, StoreLockTimeout, StoreUnavailable
from saga_engine.settings import Settings
from saga_engine.store.batch_append import AppendResult
from saga_engine.store.interfaces import Store, StoreTransaction
from saga_engine.telemetry.events import (
    BatchProcessed,
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
            StoreUnavailable, StoreRefused: as `run`.
        """
        confirmed_ids = self._outbox_publisher.take_confirmed()
        started_at = time.perf_counter()
        try:
            with self.admission.track_transaction() as admitted:
                async with self._store.batch() as tx:
                    self._cache.enter(epoch := tx.epoch)
                    now = self.clock.now or self.clock.observe(await tx.database_now())
                    changes = ChangeSet(now, admitted)
                    batch = BatchTransaction(
                        tx, self._registry, self.admission, self._cache, changes, self._settings
                    )
                    trigger_count = await operation(tx, batch) or 0
                    decided_at = time.perf_counter()
                    result = await flush_changes(tx, changes, self._settings, confirmed_ids)
        except BaseException as error:
            self._outbox_publisher.give_back(confirmed_ids)
            self._on_transaction_error(error)
            if isinstance(error, RunsChanged):
                self._cache.discard(error.run_ids)
            raise
        committed_at = time.perf_counter()
        self._on_database_reached()
        lost = self._remember(changes, result, epoch)
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
        return CommittedBatch(trigger_count, lost, changes.needing_care, changes.unanswered)

    def _remember(
        self, changes: ChangeSet, result: AppendResult | None, epoch: int | None
    ) -> Collection[str]:
        """Keep the runs as they are now, and forget those that were lost; returns these."""
        lost: Collection[str] = () if result is None else result.lost
        if result is not None:
            self.clock.observe(result.now)
        for run_id, stored in changes.runs.items():
            if run_id not in lost:
                self._cache.keep(stored, epoch)
        self._cache.discard(lost)
        return lost

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
        if not run_ids:
            return set()
        async with self._store.transaction() as tx:
            others = set(run_ids) - await tx.lockable_runs(run_ids)
            return set(await tx.read_statuses(others))

    async def wait_until_reached(self, min_delay: float, max_delay: float) -> None:
        """Wait, from *min_delay* seconds on only until the database has answered a transaction."""
        database_reached = self._database_reached
        await asyncio.sleep(min_delay)
        await wait_for_event(database_reached, max_delay - min_delay)
