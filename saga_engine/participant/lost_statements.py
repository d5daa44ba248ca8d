"""
Whether a statement that takes long is still at work, asked from outside its connection.

A handler's statement may take long, so how long it takes says nothing. But if its answer was lost,
or the statement itself, somewhere between two hosts that are both there, nobody would ever say so,
and a few of those take every slot of a process. PostgreSQL knows: a session that waits for us,
while we wait for it, is lost. It is ended on both sides, so that what it has locked is free.

PostgreSQL waits for us as well while it reads a large statement, so nothing is lost while bytes
move. Whoever stands between us may have taken them all, and pass them on slowly: neither end can
see that, and it is not to be told from a loss. So what has sent much is given longer.
"""

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, event, text
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from saga_engine.postgres.connect import engine_for
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseTroubled, Observer, described

LOOK = 0.5
"""Seconds between two looks at what is waited for."""

DRIP = 125_000
"""Bytes a second at which what was sent reaches PostgreSQL at the least: 1 Mbit/s."""

APPLICATION = "saga-engine participant"
"""Only sessions of that name are ended, or of one that a single connection has behind a pooler."""


class _Bytes(NamedTuple):
    """What of a connection's has moved until now."""

    unsent: int = 0
    acknowledged: int = 0
    received: int = 0


class _Wait:
    """That something is waited for on a connection of asyncpg's; nothing has happened `since`."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.since = time.monotonic()
        self._begun = self._moved = _moved(driver)

    @property
    def session(self) -> int | str:
        """
        What names the session in PostgreSQL: its process number, or a name behind a pooler.

        There the number is the pooler's own, and the session is another one in each transaction.
        """
        named: int | str = self.driver.session_name or self.driver.get_server_pid()
        return named

    def is_silent(self, patience: float) -> bool:
        """Whether nothing has moved for so long, and what was sent has had the time to arrive."""
        moved = _moved(self.driver)
        if moved != self._moved:
            self._moved = moved
            self.since = time.monotonic()
        sent = moved.acknowledged - self._begun.acknowledged
        return time.monotonic() - self.since > patience + sent / DRIP


class Watchdog:
    """
    Watches the statements of one engine, from when it is made; `run` ends what is lost.

    Args:
        url: where PostgreSQL is asked, over a connection that is opened for it; `asking` opens it.
    """

    def __init__(self, engine: AsyncEngine, url: str, settings: Settings) -> None:
        self._patience = settings.participant_watchdog
        self._timeout = settings.database_connect_timeout
        self._waits: dict[Connection | None, _Wait] = {}
        self.asking = engine_for(
            url,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={"timeout": self._timeout, "command_timeout": self._timeout},
        )
        event.listen(engine.sync_engine, "before_cursor_execute", self._begins)
        event.listen(engine.sync_engine, "after_cursor_execute", self._ends)
        event.listen(engine.sync_engine, "handle_error", self._fails)

    @contextmanager
    def watching(self, connection: AsyncConnection) -> Iterator[None]:
        """Surround what is no statement, and waits for PostgreSQL all the same."""
        used = connection.sync_connection
        assert used is not None, "it has been begun"
        self._begins(used)
        try:
            yield
        finally:
            self._ends(used)

    def forget(self, connection: AsyncConnection) -> None:
        """Nothing is waited for on it any more, however that ended."""
        self._waits.pop(connection.sync_connection, None)

    async def run(self, tell: Observer) -> None:
        """Look for what is lost, until cancelled; one fact for an outage, however long it is."""
        troubled = False
        while True:
            await asyncio.sleep(LOOK)
            try:
                lost = await self._end_the_lost()
            except Exception as error:  # noqa: BLE001 - the next look asks again
                if not troubled:
                    tell(DatabaseTroubled(operation="watchdog", problem=described(error)))
                troubled = True
                continue
            troubled = False
            if lost:
                problem = f"{len(lost)} statements or their answers were lost on the way."
                tell(DatabaseTroubled(operation="watchdog", problem=problem))

    async def close(self) -> None:
        """Close what was opened here."""
        await self.asking.dispose()

    async def _end_the_lost(self) -> AbstractSet[_Wait]:
        """Ask twice, because an answer may be on its way for a moment."""
        waits = set(self._waits.values())
        if not self._silent(waits):
            return set()
        # All of them at once: each look is a connection to PostgreSQL, and takes its time.
        idle = await self._ask(waits, _IDLE)
        for each in waits - idle:
            each.since = time.monotonic()  # at work
        if not self._silent(idle):
            return set()
        await asyncio.sleep(LOOK)
        idle = self._silent(idle) & set(self._waits.values())
        lost = await self._ask(idle, _END) if idle else set()
        for each in lost:
            each.driver.terminate()
        return lost

    def _silent(self, waits: AbstractSet[_Wait]) -> AbstractSet[_Wait]:
        return {each for each in waits if each.is_silent(self._patience)}

    async def _ask(self, waits: AbstractSet[_Wait], question: TextClause) -> AbstractSet[_Wait]:
        """Those whose sessions wait for us as well."""
        by_session = {each.session: each for each in waits if not each.driver.is_closed()}
        named = {
            "numbers": [each for each in by_session if isinstance(each, int)],
            "names": [each for each in by_session if isinstance(each, str)],
            "application": APPLICATION,
        }
        async with asyncio.timeout(self._timeout), self.asking.connect() as connection:
            found = await connection.execute(question, named)
            sessions = {
                row.pid if row.application == APPLICATION else row.application for row in found
            }
            return {by_session[each] for each in sessions}

    def _begins(self, connection: Connection, *_: object) -> None:
        self._waits[connection] = _Wait(connection.connection.driver_connection)

    def _ends(self, connection: Connection, *_: object) -> None:
        self._waits.pop(connection, None)

    def _fails(self, context: ExceptionContext) -> None:
        self._waits.pop(context.connection, None)


def _moved(driver: Any) -> _Bytes:
    transport = driver._transport  # noqa: SLF001 - asyncpg does not tell it
    opened = transport and transport.get_extra_info("socket")
    if not opened:
        return _Bytes()
    unsent = transport.get_write_buffer_size()
    if sys.platform != "linux" or opened.family == socket.AF_UNIX:
        return _Bytes(unsent)
    try:
        told = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return _Bytes(unsent, *_BYTES.unpack_from(told, _BYTES_AT))
    except (OSError, struct.error):
        return _Bytes(unsent)  # it is closed, or this kernel does not tell


# bytes_acked and bytes_received of Linux's struct tcp_info, which only ever grows at its end.
_BYTES, _BYTES_AT = struct.Struct("=QQ"), 120

# Whatever state a session that waits for its client calls that: asyncpg sends statements in two
# parts.
_WAITING = """
    FROM pg_stat_activity
    WHERE usename = current_user AND wait_event = 'ClientRead'
        AND (pid = ANY (:numbers) AND application_name = :application
            OR application_name = ANY (:names))"""
_IDLE = text("SELECT pid, application_name AS application" + _WAITING)
_END = text("SELECT pid, application_name AS application, pg_terminate_backend(pid)" + _WAITING)
