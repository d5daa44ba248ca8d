"""A database that records the statements of its batches."""

from contextlib import asynccontextmanager


class RecordingBatch:
    """A batch of statements that records each of them."""

    def __init__(self, batch, log):
        self._batch, self._log = batch, log

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
        return await self._batch.execute(statement, parameters)


class RecordingDatabase:
    """A database whose batches record their statements, and how many are open at once."""

    def __init__(self, database):
        self._database = database
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
                yield RecordingBatch(batch, self.log)
        finally:
            self._open -= 1
