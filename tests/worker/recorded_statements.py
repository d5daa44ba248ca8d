"""A database that records the statements of its batches."""

from contextlib import asynccontextmanager

from saga_engine.errors import StoreUnavailable


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


class LosingBatch(RecordingBatch):
    """A batch of which the answer to the statement that appends is lost."""

    async def execute(self, statement, parameters=None):
        rows = await super().execute(statement, parameters)
        if "INSERT INTO saga_engine.journal" in str(statement):
            raise StoreUnavailable("The connection was cut.")
        return rows


class LosingDatabase(RecordingDatabase):
    """A database whose next batches, `losses` of them, lose the answer to what they append."""

    losses = 0

    @asynccontextmanager
    async def batch(self):
        async with self._database.batch() as batch:
            kind = LosingBatch if self.losses else RecordingBatch
            try:
                yield kind(batch, self.log, self._before_appends)
            except StoreUnavailable:
                self.losses -= 1
                raise
