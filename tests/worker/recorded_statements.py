"""A database that records the statements of its batches."""

from contextlib import asynccontextmanager


class RecordingBatch:
    """A batch of statements that records each of them."""

    def __init__(self, batch, log, before_appends):
        self._batch, self._log, self._before_appends = batch, log, before_appends

    @property
    def has_started(self):
        return self._batch.has_started

    @property
    def epoch(self):
        return self._batch.epoch

    async def begin(self):
        if not self._batch.has_started:
            self._log.append("BEGIN")
        await self._batch.begin()

    async def execute(self, statement, parameters=None):
        self._log.append(str(statement))
        if self._before_appends and "INSERT INTO saga_engine.journal" in str(statement):
            await self._before_appends.pop(0)()
        return await self._batch.execute(statement, parameters)


class RecordingDatabase:
    """
    A database whose batches record their statements, and how many are open at once.

    Args:
        before_appends: functions, each called once before a statement appends to the journal.
    """

    def __init__(self, database, before_appends=()):
        self._database = database
        self._before_appends = list(before_appends)
        self._open = 0
        self.log = []
        self.most_open = 0

    def transaction(self):
        return self._database.transaction()

    @asynccontextmanager
    async def batch(self):
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        try:
            async with self._database.batch() as batch:
                yield RecordingBatch(batch, self.log, self._before_appends)
        finally:
            self._open -= 1
