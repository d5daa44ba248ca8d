"""
Reads the tables of a projection all the time, as an application does.

No read fails while the server is available, and none sees less than the one before or two tables of
different batches: also while the projection is rebuilt, and its tables are exchanged.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import asyncpg

from tests.kit.programs import sleep

READ_INTERVAL_S = 0.1
CONNECT_TIMEOUT_S = 5.0
SERVER_GONE = (
    *(asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError),
    *(asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError, asyncpg.InterfaceError),
    *(OSError, TimeoutError),
)
"""What a reader may see when the server ends or has no connection left; it connects again."""


@dataclass(frozen=True)
class Totals:
    """What one statement has read; `events` are counted in each of two tables."""

    streams: int = 0
    events_by_stream: int = 0
    events_by_type: int = 0


class TableReader:
    """
    Reads the tables of the projection `changed` until its block ends.

    Args:
        url: returns the URL of the server, which a failover changes.
    """

    def __init__(self, url: Callable[[], str]):
        self.reads = 0
        self.problems: list[str] = []
        self._url = url
        self._last = Totals()

    async def __aenter__(self):
        self._task = asyncio.create_task(self._run())  # noqa: TID251 - until the block ends
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def add(self, totals: Totals):
        """Compare what was read with the read before."""
        before, self._last = self._last, totals
        self.reads += 1
        if totals.events_by_stream != totals.events_by_type:
            self.problems.append(f"E4: a reader saw tables of different batches: {totals}")
        if totals.streams < before.streams or totals.events_by_type < before.events_by_type:
            self.problems.append(f"E4: a reader saw {totals} after {before}")

    async def _run(self):
        while True:
            with suppress(*SERVER_GONE):
                connection = await asyncpg.connect(self._url(), timeout=CONNECT_TIMEOUT_S)
                try:
                    await self._read(connection)
                finally:
                    connection.terminate()
            await sleep(READ_INTERVAL_S)

    async def _read(self, connection: asyncpg.Connection):
        try:
            statement = await connection.prepare(_READ)
            while True:
                self.add(Totals(*await statement.fetchrow()))
                await sleep(READ_INTERVAL_S)
        except SERVER_GONE:
            raise
        except asyncpg.PostgresError as error:
            self.problems.append(f"E4: a reader failed: {error!r}")


_READ = """
    SELECT (SELECT count(*) FROM stream_view),
        (SELECT coalesce(sum(events), 0)::bigint FROM stream_view),
        (SELECT coalesce(sum(events), 0)::bigint FROM type_count)"""
