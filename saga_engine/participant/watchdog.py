"""
Whether a statement that takes long is still at work, asked from outside its connection.

A handler's statement may take long, so how long it takes says nothing. But if its answer was lost,
or the statement itself, somewhere between two hosts that are both there, nobody would ever say so,
and a few of those take every slot of a process. PostgreSQL knows: a session that waits for us,
while we wait for it, is lost. It is ended on both sides, so that what it has locked is free.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from saga_engine.settings import Settings
from saga_engine.store.engine import engine_for
from saga_engine.telemetry.facts import DatabaseTroubled, Observer, described

LOOK = 1.0
"""Seconds between two looks at what is waited for."""

APPLICATION = "saga-engine participant"
"""Only sessions of that name are ended: behind a pooler a session's number may be anybody's."""


class Watchdog:
    """
    Watches the statements of one engine, from when it is made; `run` ends what is lost.

    Args:
        url: where PostgreSQL is asked, over a connection that is opened for it.
    """

    def __init__(self, engine: AsyncEngine, url: str, settings: Settings) -> None:
        self._patience = settings.participant_watchdog
        self._timeout = settings.database_connect_timeout
        self._since: dict[Any, float] = {}  # by asyncpg's connection
        self._idle: dict[
            Any, float
        ] = {}  # of these, where PostgreSQL waited for us at the last look
        self._asking = engine_for(
            url,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={"timeout": self._timeout, "command_timeout": self._timeout},
        )
        event.listen(engine.sync_engine, "before_cursor_execute", self._begins)
        event.listen(engine.sync_engine, "after_cursor_execute", self._ends)
        event.listen(engine.sync_engine, "commit", self._begins)
        event.listen(engine.sync_engine, "checkin", self._is_returned)  # codespell:ignore checkin

    async def run(self, tell: Observer) -> None:
        """Look for what is lost, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            # One that broke is never returned.
            self._since = {
                each: since for each, since in self._since.items() if not each.is_closed()
            }
            latest = time.monotonic() - self._patience
            suspects = {each: since for each, since in self._since.items() if since < latest}
            try:
                idle = await self._wait_for_us(suspects) if suspects else {}
            except Exception as error:  # noqa: BLE001 - the next look asks again
                tell(DatabaseTroubled(operation="watchdog", problem=described(error)))
                continue
            # Twice, because an answer may be on its way for a moment.
            lost = [each for each, since in idle.items() if self._idle.get(each) == since]
            self._idle = idle
            for driver in lost:
                driver.terminate()
            if lost:
                problem = f"{len(lost)} statements or their answers were lost on the way."
                tell(DatabaseTroubled(operation="watchdog", problem=problem))

    async def close(self) -> None:
        """Close what was opened here."""
        await self._asking.dispose()

    async def _wait_for_us(self, suspects: Mapping[Any, float]) -> dict[Any, float]:
        """Those whose sessions wait for us as well; the server ends what waited before already."""
        numbers = {each.get_server_pid(): each for each in suspects}
        before = [
            each.get_server_pid()
            for each, since in self._idle.items()
            if suspects.get(each) == since
        ]
        named = {"numbers": list(numbers), "lost": before, "application": APPLICATION}
        async with asyncio.timeout(self._timeout), self._asking.connect() as connection:
            found = list((await connection.execute(_ASK, named)).scalars())
        return {numbers[number]: suspects[numbers[number]] for number in found}

    def _begins(self, connection: Connection, *_: object) -> None:
        self._since[connection.connection.driver_connection] = time.monotonic()

    def _ends(self, connection: Connection, *_: object) -> None:
        self._since.pop(connection.connection.driver_connection, None)

    def _is_returned(self, connection: DBAPIConnection | None, _: object) -> None:
        if connection is not None:
            driver: Any = connection
            self._since.pop(driver.driver_connection, None)


# Whatever state a session that waits for its client calls that: asyncpg sends statements in two
# parts.
_ASK = text(
    """
    SELECT pid, CASE WHEN pid = ANY (:lost) THEN pg_terminate_backend(pid) END
    FROM pg_stat_activity
    WHERE pid = ANY (:numbers) AND usename = current_user AND application_name = :application
        AND wait_event = 'ClientRead'"""
)
