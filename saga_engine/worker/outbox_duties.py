"""Tends the outbox: commands that are unroutable, that were never confirmed, or that are done."""

from datetime import timedelta

from saga_engine.settings import Settings
from saga_engine.store.interfaces import Store, StoreTransaction
from saga_engine.store.outbox import StaleCommands
from saga_engine.worker.adaptive_limit import AdaptiveLimit
from saga_engine.worker.batch_runner import BatchRunner
from saga_engine.worker.batch_transaction import BatchTransaction
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.transaction_runner import TransactionRunner
from saga_engine.worker.work_item import WorkBatch


class OutboxDuties:
    """The duties that keep the outbox short and lose no command."""

    def __init__(
        self,
        store: Store,
        transactions: TransactionRunner,
        batch_runner: BatchRunner,
        outbox_publisher: OutboxPublisher,
        settings: Settings,
    ) -> None:
        self._store = store
        self._transactions = transactions
        self._batch_runner = batch_runner
        self._outbox_publisher = outbox_publisher
        self._settings = settings
        self._resend_limit = AdaptiveLimit(settings.batch_size)

    async def process_unroutable(self) -> bool:
        """Decide for each run what follows from a command that no queue is bound for."""
        work_items = self._outbox_publisher.take_unroutable(self._settings.batch_size)
        if not work_items:
            return False
        await self._batch_runner.process(WorkBatch(work_items))
        return True

    async def resend_unconfirmed(self) -> bool:
        """Publish commands again that were committed but never confirmed, by any worker."""
        if self._outbox_publisher.blocked:
            return False
        claims: list[StaleCommands] = []

        async def claim() -> int:
            min_age = timedelta(seconds=self._settings.outbox_resend_after)
            async with self._store.transaction() as tx:
                claimed = await tx.claim_stale_commands(
                    min_age,
                    self._resend_limit.size,
                    max_bytes=self._settings.max_batch_bytes,
                )
                claims.append(claimed)
            return claimed.rows_found

        rows_found = await self._resend_limit.adapt(claim())
        await self._outbox_publisher.publish_commands(claims[0].claimed, resend=True)
        return rows_found > 0

    async def delete_confirmed(self) -> bool:
        """Delete confirmed outbox rows if no batch has done it; each transaction deletes them."""
        if self._outbox_publisher.has_confirmed:
            await self._transactions.run(_no_operation)
        return False


async def _no_operation(_tx: StoreTransaction, _batch: BatchTransaction) -> int:
    return 0
