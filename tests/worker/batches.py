"""Processes batches in transactions that a test can observe or interrupt."""

from contextlib import asynccontextmanager

from saga_engine.decider.triggers import Start
from saga_engine.protocol.answer import AnswerAddress
from saga_engine.settings import Settings
from saga_engine.store import request_queue
from saga_engine.store.sql_store import SqlStoreTransaction
from saga_engine.worker.admission import Admission
from saga_engine.worker.batch_transaction import CAREFUL, BatchTransaction
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.flush import flush_changes
from saga_engine.worker.run_cache import RunCache
from saga_engine.worker.work_item import WorkBatch, WorkItem

SETTINGS = Settings()


ANSWER_TO = AnswerAddress("client", "question")


def start(run_id):
    return Start(run_id, None, {})


def outcomes(answers):
    return [answer.outcome for answer in answers]


class InterruptedTransaction:
    """A transaction that calls a function before one of its statements."""

    has_started = True

    def __init__(self, tx, statement, meanwhile):
        self._tx = tx
        self._statement = statement
        self._meanwhile = meanwhile

    async def begin(self):
        """It has started."""

    async def execute(self, statement, *arguments):
        if statement is self._statement and self._meanwhile:
            await self._meanwhile()
        return await self._tx.execute(statement, *arguments)


class BatchDriver:
    """Processes batches as a worker does."""

    def __init__(self, database, registry):
        self.database = database
        self._registry = registry

    async def take(self, work_batch, *, interrupted_before=None, meanwhile=None):
        """Process a batch and commit it; return its answers."""
        async with self.database.transaction() as tx:
            return await self._take(
                InterruptedTransaction(tx, interrupted_before, meanwhile), work_batch
            )

    async def start_the_queued_run(self):
        """Take the queued start and insert its run, as a worker with a free slot does."""
        async with self.database.transaction() as tx:
            quotas, definition_ids = {"parcel": 1}, self._registry.definition_ids
            [item] = await request_queue.take_starts(
                tx, quotas, definition_ids=definition_ids, limit=1
            )
            await self._take(
                tx,
                WorkBatch(
                    [
                        WorkItem(
                            run_id=item.run_id, trigger=start(item.run_id), saga="parcel", version=1
                        )
                    ]
                ),
            )

    async def _take(self, tx, work_batch):
        async with self._batch(tx) as (batch, changes):
            await batch.process(work_batch, CAREFUL)
        return [each.answer for each in changes.after_commit.answers]

    @asynccontextmanager
    async def _batch(self, tx):
        """A batch, written when the block ends."""
        store_tx = SqlStoreTransaction(tx)
        changes = ChangeSet(await store_tx.database_now(), {})
        admission, cache = Admission(self._registry, SETTINGS), RunCache(0)
        batch = BatchTransaction(store_tx, self._registry, admission, cache, changes, SETTINGS)
        yield batch, changes
        await flush_changes(store_tx, changes, SETTINGS)
