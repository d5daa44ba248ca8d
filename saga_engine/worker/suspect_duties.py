"""Processes crash suspects, each in a transaction of its own; see `crash_suspects`."""

from saga_engine.settings import Settings
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.store.interfaces import Store, StoreTransaction
from saga_engine.telemetry.events import Emitter, InternalErrorCaught, describe_error
from saga_engine.telemetry.operations import Operation
from saga_engine.worker import decode_pending
from saga_engine.worker.batch_transaction import BatchTransaction
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.transaction_runner import DATABASE_UNAVAILABLE, TransactionRunner


class SuspectDuties:
    """Processes what is stored for crash suspects."""

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

    async def process_all(self) -> bool:
        """Process the pending requests and the timers of crash suspects, one run at a time."""
        async with self._store.transaction() as tx:
            self._registry.suspect_run_ids = frozenset(await tx.read_suspects())
            found = await tx.read_suspects_with_work() if self._registry.suspect_run_ids else {}
        for suspect in found.values():
            await self._process(suspect)
        return False

    async def _process(self, suspect: CrashSuspect) -> None:
        run_id, definition_ids = suspect.run_id, self._registry.definition_ids
        async with self._store.transaction() as tx:
            await tx.allow_retry(run_id)

        async def process(tx: StoreTransaction, batch: BatchTransaction) -> None:
            # The call is made by one worker at a time: it may end all that make it.
            if not await tx.lock_suspect(run_id):
                return
            current_suspects = await tx.read_suspects_among({run_id})
            for current_suspect in current_suspects.values():
                requests = await tx.take_oldest_request(run_id, definition_ids, self._body_limits)
                work_batch = decode_pending.decode_requests(requests, self._settings)
                if work_batch.unreadable:
                    await batch.process(work_batch)
                else:
                    await batch.process_suspect(
                        current_suspect, next(iter(work_batch.work_items), None)
                    )

        try:
            await self._transactions.run(process)
        except DATABASE_UNAVAILABLE:
            raise
        except Exception as error:  # noqa: BLE001 - one run's bug must not block the others
            problem = describe_error(error)
            self._emit(
                InternalErrorCaught(
                    operation=Operation.CRASH_SUSPECTS, problem=problem, run_id=run_id
                )
            )
