"""
Processes pending requests: what clients, operators and workers have stored in PostgreSQL.

A batch takes the starts that have a slot, then other requests. Two kinds of trouble are handled one
request at a time, the oldest first:

    a lock timeout    another transaction holds a row that some request needs: what is for a run
                      that is locked is deferred. If none is, the starts are tried on their own, and
                      the oldest request is deferred if it is the one
    a bug             the oldest request is processed alone. If it fails again, a start becomes a
                      run with an incident, and anything else is refused and dead-lettered. A
                      request that cannot even be refused backs off.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial

from saga_engine.errors import StoreLockTimeout, StoreReadTooLarge
from saga_engine.settings import Settings
from saga_engine.store.interfaces import Store, StoreTransaction
from saga_engine.store.pending_requests import PendingRequest
from saga_engine.telemetry.events import Emitter, InternalErrorCaught, describe_error
from saga_engine.telemetry.operations import Operation
from saga_engine.worker import decode_pending
from saga_engine.worker.adaptive_limit import AdaptiveLimit
from saga_engine.worker.batch_transaction import BatchMode, BatchTransaction
from saga_engine.worker.flush import INTERNAL_ERROR_DELAY
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.transaction_runner import DATABASE_UNAVAILABLE, TransactionRunner
from saga_engine.worker.work_item import UnreadableRequest, WorkItem


class PendingRequestDuties:
    """Processes the pending requests for definitions that this worker has loaded."""

    def __init__(
        self,
        store: Store,
        registry: SagaRegistry,
        transactions: TransactionRunner,
        settings: Settings,
        emit: Emitter,
    ) -> None:
        self._store = store
        self._registry = registry
        self._transactions = transactions
        self._settings = settings
        self._emit = emit
        self._body_limits = decode_pending.body_limits(settings)
        self._limit = AdaptiveLimit(settings.batch_size)
        self._starts_first = False

    async def process(self) -> bool:
        """Process pending requests; whether there were any."""
        try:
            return await self._process_batches()
        except DATABASE_UNAVAILABLE:
            raise
        except StoreReadTooLarge:
            return True  # their runs are large: it is retried immediately, with half as many
        except Exception as error:  # noqa: BLE001 - one request's bug must not block the others
            self._emit(
                InternalErrorCaught(operation=Operation.PENDING_WORK, problem=describe_error(error))
            )
            return await self._process_oldest()

    async def _process_batches(self) -> bool:
        run_ids: set[str] = set()
        with suppress(StoreLockTimeout):
            return await self._run_batch(partial(self._process_requests_and_starts, run_ids, ()))
        with suppress(StoreLockTimeout):
            if locked := await self._transactions.find_locked(run_ids):
                process_others = partial(self._process_requests_and_starts, set(), locked)
                return await self._run_batch(process_others)
        return await self._process_around_locks()

    async def _run_batch(
        self, operation: Callable[[StoreTransaction, BatchTransaction], Awaitable[int]]
    ) -> bool:
        """Run one transaction, and adapt the size of the next one to it."""
        return await self._limit.adapt(self._transactions.run(operation)) > 0

    async def _process_around_locks(self) -> bool:
        """
        Process starts only, then the oldest request alone.

        Another transaction holds a row that a request needs besides its run. If waiting for such
        rows takes longer than `LOCK_RETRY_DELAY`, a batch with all requests would never succeed.
        Starts do not need those rows.
        """
        found_work = False
        with suppress(StoreLockTimeout):  # a start is blocked too; as the oldest it is deferred
            found_work |= await self._run_batch(self._process_starts)
        return await self._process_oldest() or found_work

    async def _process_requests_and_starts(
        self,
        run_ids: set[str],
        locked_elsewhere: Collection[str],
        tx: StoreTransaction,
        batch: BatchTransaction,
    ) -> int:
        """Process a batch; collect in *run_ids* the runs of the requests that it has taken."""
        limit = self._limit.size
        requests = await self._take_admissible_starts(tx, limit)
        # After the starts: a request is not taken before the start of its run is.
        requests += await tx.take_requests(
            definition_ids=self._registry.definition_ids,
            limit=limit,
            body_limits=self._body_limits,
            max_bytes=self._settings.max_batch_bytes,
        )
        run_ids.update(each.run_id for each in requests)
        return await self._process_requests(batch, requests, locked_elsewhere)

    async def _process_starts(self, tx: StoreTransaction, batch: BatchTransaction) -> int:
        return await self._process_requests(
            batch, await self._take_admissible_starts(tx, self._limit.size)
        )

    async def _process_requests(
        self,
        batch: BatchTransaction,
        requests: Sequence[PendingRequest],
        locked_elsewhere: Collection[str] = (),
    ) -> int:
        """Process requests that were taken, and defer those of crash suspects."""
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
            mode = BatchMode(careful=True, locked_elsewhere=locked_elsewhere)
            await batch.process(work_batch, mode)
        return len(requests)

    async def _process_oldest(self) -> bool:
        """Process the oldest request alone; if it fails it is deferred or refused."""
        # Starts and other requests take turns, because either may come without end.
        self._starts_first = not self._starts_first
        requests: list[PendingRequest] = []

        async def process(tx: StoreTransaction, batch: BatchTransaction) -> int:
            requests[:] = await self._take_oldest(tx)
            return await self._process_requests(batch, requests)

        try:
            return await self._transactions.run(process) > 0
        except StoreLockTimeout:
            await self._transactions.run(partial(self._take_and_resolve, requests, _defer))
        except DATABASE_UNAVAILABLE:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._emit(
                InternalErrorCaught(
                    operation=Operation.PENDING_REQUESTS,
                    problem=describe_error(error),
                    run_id=requests[0].run_id if requests else "",
                )
            )
            await self._refuse(requests)
        return True

    async def _refuse(self, requests: Sequence[PendingRequest]) -> None:
        """Turn a start that hits a bug into a run with an incident, or refuse the request."""
        for resolve in (
            BatchTransaction.handle_internal_error,
            BatchTransaction.refuse_for_internal_error,
        ):
            try:
                await self._transactions.run(partial(self._take_and_resolve, requests, resolve))
                break
            except DATABASE_UNAVAILABLE:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                self._emit(
                    InternalErrorCaught(
                        operation=Operation.PENDING_REQUESTS, problem=describe_error(error)
                    )
                )
        else:
            async with self._store.transaction() as tx:
                await tx.defer_requests([request.id for request in requests], INTERNAL_ERROR_DELAY)

    async def _take_and_resolve(
        self,
        requests: Sequence[PendingRequest],
        resolve: Callable[[BatchTransaction, WorkItem], Awaitable[None]],
        tx: StoreTransaction,
        batch: BatchTransaction,
    ) -> None:
        """Take the same request again and do nothing with it but *resolve*."""
        if await self._take_oldest(tx) != requests:
            raise StoreLockTimeout("Another worker has taken that request. Nothing was done.")
        for request in requests:
            decoded = decode_pending.decode_request(request, self._settings)
            await resolve(
                batch, decoded.work_item if isinstance(decoded, UnreadableRequest) else decoded
            )

    async def _take_admissible_starts(
        self, tx: StoreTransaction, limit: int
    ) -> list[PendingRequest]:
        """Take up to *limit* starts that have a slot."""
        admission, definition_ids = self._transactions.admission, self._registry.definition_ids
        queued_sagas = await tx.sagas_with_starts(self._registry.saga_names, definition_ids)
        if not queued_sagas:
            return []
        await admission.refresh(tx)
        return await tx.take_starts(
            admission.quotas(queued_sagas, limit),
            definition_ids=definition_ids,
            limit=limit,
            body_limits=self._body_limits,
            max_bytes=self._settings.max_batch_bytes,
        )

    async def _take_oldest(self, tx: StoreTransaction) -> list[PendingRequest]:
        """Take one request, if there is any: a start, or another one if it is their turn."""
        if self._starts_first:
            return await self._take_oldest_start(tx) or await self._take_oldest_non_start(tx)
        return await self._take_oldest_non_start(tx) or await self._take_oldest_start(tx)

    async def _take_oldest_non_start(self, tx: StoreTransaction) -> list[PendingRequest]:
        definition_ids, body_limits = self._registry.definition_ids, self._body_limits
        return await tx.take_requests(
            definition_ids=definition_ids, limit=1, body_limits=body_limits
        )

    async def _take_oldest_start(self, tx: StoreTransaction) -> list[PendingRequest]:
        """Take one start, whether or not it has a slot."""
        definition_ids, body_limits = self._registry.definition_ids, self._body_limits
        queued_sagas = await tx.sagas_with_starts(self._registry.saga_names, definition_ids)
        quotas = dict.fromkeys(sorted(queued_sagas), 1)
        return await tx.take_starts(
            quotas, definition_ids=definition_ids, limit=1, body_limits=body_limits
        )


async def _defer(batch: BatchTransaction, work_item: WorkItem) -> None:
    batch.defer(work_item)
