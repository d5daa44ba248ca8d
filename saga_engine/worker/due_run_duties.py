"""
Processes due runs: retries, timeouts and deadlines whose time has come.

They are processed in batches. If a batch fails because of a bug, each run is processed alone, so
that one run does not block the others.
"""

from functools import partial

from saga_engine.errors import StoreReadTooLarge
from saga_engine.settings import Settings
from saga_engine.store.interfaces import Store, StoreTransaction
from saga_engine.telemetry.events import Emitter, InternalErrorCaught, describe_error
from saga_engine.telemetry.operations import Operation
from saga_engine.worker.adaptive_limit import AdaptiveLimit
from saga_engine.worker.batch_runner import DATABASE_UNAVAILABLE, BatchRunner
from saga_engine.worker.batch_transaction import INTERNAL_ERROR_DELAY, BatchTransaction
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.registry import SagaRegistry


class DueRunDuties:
    """Processes the due runs of the definitions that this worker has loaded."""

    def __init__(
        self,
        store: Store,
        registry: SagaRegistry,
        batch_runner: BatchRunner,
        outbox_publisher: OutboxPublisher,
        settings: Settings,
        emit: Emitter,
    ) -> None:
        self._store = store
        self._registry = registry
        self._batch_runner = batch_runner
        self._outbox_publisher = outbox_publisher
        self._settings = settings
        self._emit = emit
        self._limit = AdaptiveLimit(settings.batch_size)

    async def process(self) -> bool:
        """Process a batch of due runs; whether there were any."""
        try:
            return (
                await self._limit.adapt(self._batch_runner.run_transaction(self._process_batch)) > 0
            )
        except DATABASE_UNAVAILABLE:
            raise
        except StoreReadTooLarge:
            return True  # it is retried immediately, with half as many
        except Exception as error:  # noqa: BLE001 - one run's bug must not block the others
            self._emit(
                InternalErrorCaught(operation=Operation.PENDING_WORK, problem=describe_error(error))
            )
            return await self._process_individually()

    async def _process_batch(self, _tx: StoreTransaction, batch: BatchTransaction) -> int:
        """
        Process due runs, unless the broker is unavailable.

        During such an outage it is unknown whether a command was answered, and the next command
        could not be published. Waiting costs each run one attempt instead of all of them.
        """
        if self._outbox_publisher.blocked:
            return 0
        return await batch.process_due_runs(self._limit.size)

    async def _process_individually(self) -> bool:
        """Process each due run alone; one that hits a bug again backs off."""
        async with self._store.transaction() as tx:
            due_run_ids = await tx.due_run_ids(
                self._registry.definition_ids, self._settings.batch_size
            )
        for run_id in due_run_ids:
            try:
                await self._batch_runner.run_transaction(partial(_wake_run, run_id))
            except DATABASE_UNAVAILABLE:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                problem = describe_error(error)
                self._emit(
                    InternalErrorCaught(
                        operation=Operation.DUE_RUNS, problem=problem, run_id=run_id
                    )
                )
                async with self._store.transaction() as tx:
                    await tx.defer_wake(run_id, INTERNAL_ERROR_DELAY)
        return bool(due_run_ids)


async def _wake_run(run_id: str, _tx: StoreTransaction, batch: BatchTransaction) -> None:
    await batch.wake_run(run_id)
