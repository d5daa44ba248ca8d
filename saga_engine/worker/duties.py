"""
What a worker does besides taking deliveries: timers, recorded requests, commands left behind.

Each duty is one method that does a bounded piece of work and says whether there was any; `loop`
calls it again. Every worker does all of them; rows are claimed with SKIP LOCKED, so workers share
the work without knowing of each other.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial

from saga_engine.errors import StoreLockTimeout, StoreReadTooLarge
from saga_engine.settings import Settings
from saga_engine.store import (
    backlog_counts,
    crash_suspects,
    definitions,
    engine_identity,
    outbox,
    partitions,
    pending_requests,
    retention,
    runs,
    stranded_starts,
)
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.definitions import presence_policy
from saga_engine.store.outbox import StaleCommands
from saga_engine.store.partitions import LockRetry
from saga_engine.store.pending_requests import PendingRequest
from saga_engine.telemetry.events import (
    BacklogCounted,
    Emitter,
    InternalErrorCaught,
    describe_error,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.worker import decode_pending
from saga_engine.worker.adaptive_limit import AdaptiveLimit
from saga_engine.worker.batch_runner import DATABASE_UNAVAILABLE, BatchRunner
from saga_engine.worker.batch_transaction import INTERNAL_ERROR_DELAY, BatchTransaction
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.work_item import UnreadableRequest, WorkBatch, WorkItem


class Duties:
    """The periodic work of one worker."""

    def __init__(
        self,
        database: Database,
        registry: SagaRegistry,
        batch_runner: BatchRunner,
        outbox_publisher: OutboxPublisher,
        settings: Settings,
        emit: Emitter,
    ) -> None:
        self._database = database
        self._registry = registry
        self._batch_runner = batch_runner
        self._outbox_publisher = outbox_publisher
        self._settings = settings
        self._emit = emit
        self._body_limits = decode_pending.body_limits(settings)
        self._presence_times = presence_policy(settings)
        self._request_limit = AdaptiveLimit(settings.batch_size)
        self._due_limit = AdaptiveLimit(settings.batch_size)
        self._resend_limit = AdaptiveLimit(settings.batch_size)
        self._starts_first = False

    async def process_due_and_pending(self) -> bool:
        """
        Deal with what waits in PostgreSQL: runs that are due, then requests that were recorded.

        Each in a transaction of its own: whatever is wrong with the requests, timers fire. Most
        of the time there is neither, so one short transaction looks first.
        """
        if self._outbox_publisher.blocked:
            self._batch_runner.admission.connection_lost()  # until now; the next look says so again
        has_due_runs, has_requests = await self._batch_runner.read(self._check_for_work)
        processed_runs = has_due_runs and await self._process_due_runs()
        return (has_requests and await self._process_pending_requests()) or processed_runs

    async def _check_for_work(self, tx: SqlAlchemyTransaction) -> tuple[bool, bool]:
        """
        Whether runs are due, and whether there may be requests.

        While runs are due, the requests are not looked at: somebody may have locked their table.
        """
        definition_ids = self._registry.definition_ids
        due = bool(await runs.due_run_ids(tx, definition_ids, 1))
        return due, due or await pending_requests.has_work(
            tx, self._registry.saga_names, definition_ids
        )

    async def _process_due_runs(self) -> bool:
        try:
            return (
                await self._due_limit.adapt(
                    self._batch_runner.run_transaction(self._process_due_batch)
                )
                > 0
            )
        except DATABASE_UNAVAILABLE:
            raise
        except StoreReadTooLarge:
            return True  # it goes on at once, with half as many
        except Exception as error:  # noqa: BLE001 - one run's trouble must not hold up the others
            self._emit(
                InternalErrorCaught(operation=Operation.PENDING_WORK, problem=describe_error(error))
            )
            return await self._wake_runs_individually()

    async def _process_pending_requests(self) -> bool:
        try:
            return await self._process_request_batches()
        except DATABASE_UNAVAILABLE:
            raise
        except StoreReadTooLarge:
            return True  # their runs are large: it goes on at once, with half as many
        except Exception as error:  # noqa: BLE001 - the same
            self._emit(
                InternalErrorCaught(operation=Operation.PENDING_WORK, problem=describe_error(error))
            )
            return await self._process_oldest_request()

    async def _process_request_batches(self) -> bool:
        try:
            return (
                await self._request_limit.adapt(
                    self._batch_runner.run_transaction(self._process_request_batch)
                )
                > 0
            )
        except StoreLockTimeout:
            return await self._process_around_locks()

    async def _process_around_locks(self) -> bool:
        """
        Somebody holds what a recorded request needs besides its run: put that request by.

        While it takes longer to find out about some than they are left alone, the batch never gets
        through; starts need nothing of theirs.
        """
        found_work = False
        with suppress(
            StoreLockTimeout
        ):  # a start is held too, and will be put by when it is the oldest
            found_work |= (
                await self._request_limit.adapt(
                    self._batch_runner.run_transaction(self._process_start_batch)
                )
                > 0
            )
        return await self._process_oldest_request() or found_work

    async def _wake_runs_individually(self) -> bool:
        """Wake each due run alone; one that cannot be woken rests for a while."""
        async with self._database.transaction() as tx:
            due_run_ids = await runs.due_run_ids(
                tx, self._registry.definition_ids, self._settings.batch_size
            )
        for run_id in due_run_ids:
            try:
                await self._batch_runner.run_transaction(partial(_wake_run, run_id))
            except DATABASE_UNAVAILABLE:
                raise
            except Exception as error:  # noqa: BLE001 - the same
                problem = describe_error(error)
                self._emit(
                    InternalErrorCaught(
                        operation=Operation.DUE_RUNS, problem=problem, run_id=run_id
                    )
                )
                async with self._database.transaction() as tx:
                    await runs.defer_wake(tx, run_id, INTERNAL_ERROR_DELAY)
        return bool(due_run_ids)

    async def _process_oldest_request(self) -> bool:
        """Take in the oldest request alone; one that breaks its batch is refused."""
        # In turn, because either kind may come without end.
        self._starts_first = not self._starts_first
        requests: list[PendingRequest] = []

        async def process(tx: SqlAlchemyTransaction, batch: BatchTransaction) -> int:
            requests.extend(await self._take_oldest_request(tx))
            return await self._process_requests(batch, requests)

        try:
            return await self._batch_runner.run_transaction(process) > 0
        except StoreLockTimeout:
            await self._batch_runner.run_transaction(
                partial(self._resolve_requests, requests, _defer)
            )
        except DATABASE_UNAVAILABLE:
            raise
        except Exception as error:  # noqa: BLE001 - the same
            run_id = requests[0].run_id if requests else ""
            self._emit(
                InternalErrorCaught(
                    operation=Operation.PENDING_REQUESTS,
                    problem=describe_error(error),
                    run_id=run_id,
                )
            )
            await self._refuse_requests(requests)
        return True

    async def _refuse_requests(self, requests: Sequence[PendingRequest]) -> None:
        """
        Begin the start that broke its batch as a run with an incident, or refuse the request.

        One that cannot even be refused rests.
        """
        for resolve in (
            BatchTransaction.handle_internal_error,
            BatchTransaction.refuse_for_internal_error,
        ):
            try:
                await self._batch_runner.run_transaction(
                    partial(self._resolve_requests, requests, resolve)
                )
                break
            except DATABASE_UNAVAILABLE:
                raise
            except Exception as error:  # noqa: BLE001 - the same
                self._emit(
                    InternalErrorCaught(
                        operation=Operation.PENDING_REQUESTS, problem=describe_error(error)
                    )
                )
        else:
            async with self._database.transaction() as tx:
                await pending_requests.defer(
                    tx, [request.id for request in requests], INTERNAL_ERROR_DELAY
                )

    async def _resolve_requests(
        self,
        requests: Sequence[PendingRequest],
        resolve: Callable[[BatchTransaction, WorkItem], Awaitable[None]],
        tx: SqlAlchemyTransaction,
        batch: BatchTransaction,
    ) -> None:
        """Take the same request out again, and only settle it."""
        if await self._take_oldest_request(tx) != requests:
            raise StoreLockTimeout("Another worker has taken that request. Nothing was done.")
        for request in requests:
            decoded = decode_pending.decode_request(request, self._settings)
            await resolve(
                batch, decoded.work_item if isinstance(decoded, UnreadableRequest) else decoded
            )

    async def _process_requests(
        self, batch: BatchTransaction, requests: Sequence[PendingRequest]
    ) -> int:
        work_batch = decode_pending.decode_requests(requests, self._settings)
        if suspect_items := [
            each for each in work_batch.work_items if batch.is_suspect(each.run_id)
        ]:
            for each in suspect_items:
                batch.defer(each)
            work_batch.work_items = [
                each for each in work_batch.work_items if each not in suspect_items
            ]
        if any(True for _ in work_batch):
            await batch.process(work_batch, wait_for_locks=False)
        return len(requests)

    async def _process_due_batch(self, _tx: SqlAlchemyTransaction, batch: BatchTransaction) -> int:
        """
        Wake the runs that are due, unless we are cut off from the broker.

        Then nobody knows whether a command was answered, and what would follow could not leave: an
        outage costs each run one attempt, not all of them.
        """
        if self._outbox_publisher.blocked:
            return 0
        return await batch.process_due_runs(self._due_limit.size)

    async def _process_request_batch(
        self, tx: SqlAlchemyTransaction, batch: BatchTransaction
    ) -> int:
        limit, definition_ids = self._request_limit.size, self._registry.definition_ids
        requests = await self._take_admissible_starts(tx, limit)
        # After the starts: what is asked of a run is held back until its start is taken out.
        requests += await pending_requests.take(
            tx,
            definition_ids=definition_ids,
            limit=limit,
            body_limits=self._body_limits,
            max_bytes=self._settings.max_batch_bytes,
        )
        return await self._process_requests(batch, requests)

    async def _process_start_batch(self, tx: SqlAlchemyTransaction, batch: BatchTransaction) -> int:
        return await self._process_requests(
            batch, await self._take_admissible_starts(tx, self._request_limit.size)
        )

    async def _take_admissible_starts(
        self, tx: SqlAlchemyTransaction, limit: int
    ) -> list[PendingRequest]:
        """Take out up to *limit* starts whose turn it is."""
        admission, definition_ids = self._batch_runner.admission, self._registry.definition_ids
        queued_sagas = await pending_requests.sagas_with_starts(
            tx, self._registry.saga_names, definition_ids
        )
        if not queued_sagas:
            return []
        await admission.refresh(tx)
        quotas = admission.quotas(queued_sagas, limit)
        return await pending_requests.take_starts(
            tx,
            quotas,
            definition_ids=definition_ids,
            limit=limit,
            body_limits=self._body_limits,
            max_bytes=self._settings.max_batch_bytes,
        )

    async def _take_oldest_request(self, tx: SqlAlchemyTransaction) -> list[PendingRequest]:
        """Take out one thing, if there is any: a start, or something else if it is its turn."""
        if self._starts_first:
            return await self._take_oldest_start(tx) or await self._take_oldest_non_start(tx)
        return await self._take_oldest_non_start(tx) or await self._take_oldest_start(tx)

    async def _take_oldest_non_start(self, tx: SqlAlchemyTransaction) -> list[PendingRequest]:
        definition_ids, body_limits = self._registry.definition_ids, self._body_limits
        return await pending_requests.take(
            tx, definition_ids=definition_ids, limit=1, body_limits=body_limits
        )

    async def _take_oldest_start(self, tx: SqlAlchemyTransaction) -> list[PendingRequest]:
        """Take out a start without regard to its turn."""
        definition_ids, body_limits = self._registry.definition_ids, self._body_limits
        queued_sagas = await pending_requests.sagas_with_starts(
            tx, self._registry.saga_names, definition_ids
        )
        quotas = dict.fromkeys(sorted(queued_sagas), 1)
        return await pending_requests.take_starts(
            tx, quotas, definition_ids=definition_ids, limit=1, body_limits=body_limits
        )

    async def process_unroutable(self) -> bool:
        """Tell runs of their commands that no queue is bound for."""
        limit = self._settings.batch_size
        unroutable = self._outbox_publisher.unroutable[:limit]
        del self._outbox_publisher.unroutable[:limit]
        if not unroutable:
            return False
        # Not after it: a command that the run takes for undelivered must never be sent again.
        self._outbox_publisher.confirmed_ids.extend(outbox_id for outbox_id, _ in unroutable)
        await self._batch_runner.process(WorkBatch([work_item for _, work_item in unroutable]))
        return True

    async def resend_unconfirmed(self) -> bool:
        """Send again what was committed but never confirmed, whoever committed it."""
        if self._outbox_publisher.blocked:
            return False
        claims: list[StaleCommands] = []

        async def claim() -> int:
            min_age, max_bytes = (
                timedelta(seconds=self._settings.outbox_resend_after),
                self._settings.max_batch_bytes,
            )
            async with self._database.transaction() as tx:
                max_rows = self._resend_limit.size
                claims.append(await outbox.claim_stale(tx, min_age, max_rows, max_bytes=max_bytes))
            return claims[0].rows_found

        claimed_count = await self._resend_limit.adapt(claim())
        await self._outbox_publisher.publish_commands(claims[0].claimed, resend=True)
        return claimed_count > 0

    async def process_suspects(self) -> bool:
        """Deal with what waits for runs that have ended a worker, each of them alone."""
        async with self._database.transaction() as tx:
            self._registry.suspect_run_ids = frozenset(await crash_suspects.read_all(tx))
            found = (
                await crash_suspects.read_with_work(tx) if self._registry.suspect_run_ids else {}
            )
        for suspect in found.values():
            await self._process_suspect(suspect)
        return False

    async def _process_suspect(self, suspect: CrashSuspect) -> None:
        run_id, definition_ids = suspect.run_id, self._registry.definition_ids
        async with self._database.transaction() as tx:
            await crash_suspects.allow_retry(tx, run_id)
            current_suspects = await crash_suspects.read_among(tx, {run_id})

        async def process(tx: SqlAlchemyTransaction, batch: BatchTransaction) -> None:
            for current_suspect in current_suspects.values():
                requests = await crash_suspects.take_oldest_request(
                    tx, run_id, definition_ids, self._body_limits
                )
                work_batch = decode_pending.decode_requests(requests, self._settings)
                if work_batch.unreadable:
                    await batch.process(work_batch, wait_for_locks=True)
                else:
                    await batch.process_suspect(
                        current_suspect, next(iter(work_batch.work_items), None)
                    )

        try:
            await self._batch_runner.run_transaction(process)
        except DATABASE_UNAVAILABLE:
            raise
        except Exception as error:  # noqa: BLE001 - one run's trouble must not hold up the others
            problem = describe_error(error)
            self._emit(
                InternalErrorCaught(
                    operation=Operation.CRASH_SUSPECTS, problem=problem, run_id=run_id
                )
            )

    async def delete_confirmed(self) -> bool:
        """Delete confirmed outbox rows when no batch has come along to do it."""
        if self._outbox_publisher.confirmed_ids:
            await self._batch_runner.run_transaction(_no_operation)
        return False

    async def maintenance(self) -> bool:
        """Read the token keys, count for the gauges, forget old suspects."""
        async with self._database.transaction() as tx:
            self._outbox_publisher.token_keys = await engine_identity.token_keys(tx)
        if self._registry.suspect_run_ids:
            async with self._database.transaction() as tx:
                await crash_suspects.delete_expired(tx)
        async with self._database.transaction() as tx:
            counts = await backlog_counts.count_backlog(tx, self._settings.max_gauge_count)
            self._emit(_backlog_event(counts, len(self._registry.suspect_run_ids)))
        return False

    async def refresh_presence(self) -> bool:
        """Say which definitions this worker has; it counts as having them for a while."""
        async with self._database.transaction() as tx:
            await definitions.refresh_presence(
                tx, self._registry.definition_ids, self._presence_times
            )
        return False

    async def maintain_partitions(self) -> bool:
        """Make the partitions of coming months, drop the months that are past their retention."""
        settings = self._settings
        days = settings.run_retention_days
        await partitions.maintain(
            self._database,
            # As long as its ids may still arrive, a month stays.
            retention_days=max(days, settings.max_run_id_age_days + 1) if days else 0,
            months_ahead=settings.partition_months_ahead,
            lock_retry=LockRetry(settings.partition_lock_timeout, settings.partition_lock_attempts),
        )
        return False

    async def _dead_letter_unknown_starts(
        self, tx: SqlAlchemyTransaction, batch: BatchTransaction
    ) -> int:
        """Make dead letters of starts whose definition no worker has loaded in all their days."""
        days = self._settings.max_run_id_age_days
        requests = await stranded_starts.take_without_definition(
            tx, timedelta(days=days), self._settings.batch_size, self._body_limits
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
        unreadable = [UnreadableRequest(each, "unknown_saga", text) for each in work_items]
        if unreadable:
            await batch.process(WorkBatch(unreadable=unreadable), wait_for_locks=False)
        return len(requests)

    async def purge_expired(self) -> bool:
        """Delete what is past its days: settled dead letters, acts, starts of no definition."""
        settings = self._settings
        await self._batch_runner.run_transaction(self._dead_letter_unknown_starts)
        days = {
            "dead_letter_days": settings.dead_letter_retention_days,
            "audit_days": settings.audit_retention_days,
        }
        await retention.purge_expired(self._database, **days)
        return False


def _backlog_event(counts: backlog_counts.BacklogCounts, suspect_count: int) -> BacklogCounted:
    dead_letters_by_reason: Counter[str] = Counter()
    for (_, reason), count in counts.dead_letters.items():
        dead_letters_by_reason[reason] += count
    return BacklogCounted(
        runs={(saga, status.value): count for (saga, status), count in counts.runs.items()},
        oldest_run_age_s=counts.oldest_run_age,
        incidents_open=counts.open_incidents,
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


async def _wake_run(run_id: str, _tx: SqlAlchemyTransaction, batch: BatchTransaction) -> None:
    await batch.wake_run(run_id)


async def _no_operation(_tx: SqlAlchemyTransaction, _batch: BatchTransaction) -> int:
    return 0


async def _defer(batch: BatchTransaction, work_item: WorkItem) -> None:
    batch.defer(work_item)
