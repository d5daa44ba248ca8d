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

from saga_engine.postgres.connect import create_database_engine
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable, Observer, describe_error
from saga_engine.telemetry.operations import Operation

POLL_INTERVAL = 0.5
"""Seconds between two looks at what is waited for."""

MIN_UPLOAD_RATE = 125_000
"""Bytes a second at which what was sent reaches PostgreSQL at the least: 1 Mbit/s."""

APPLICATION_NAME = "saga-engine participant"
"""Only sessions of that name are ended, or of one that a single connection has behind a pooler."""


class _ByteCounts(NamedTuple):
    """What of a connection's has moved until now."""

    unsent: int = 0
    acknowledged: int = 0
    received: int = 0


class _PendingStatement:
    """That something is waited for on a connection of asyncpg's; nothing has happened `since`."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.last_activity = time.monotonic()
        self._counts_at_start = self._last_counts = _byte_counts(driver)

    @property
    def session_id(self) -> int | str:
        """
        What names the session in PostgreSQL: its process number, or a name behind a pooler.

        There the number is the pooler's own, and the session is another one in each transaction.
        """
        session_id: int | str = self.driver.session_name or self.driver.get_server_pid()
        return session_id

    def is_silent(self, silence_timeout: float) -> bool:
        """Whether nothing has moved for so long, and what was sent has had the time to arrive."""
        counts = _byte_counts(self.driver)
        if counts != self._last_counts:
            self._last_counts = counts
            self.last_activity = time.monotonic()
        sent_bytes = counts.acknowledged - self._counts_at_start.acknowledged
        return (
            time.monotonic() - self.last_activity > silence_timeout + sent_bytes / MIN_UPLOAD_RATE
        )


class LostStatementMonitor:
    """
    Watches the statements of one engine, from when it is made; `run` ends what is lost.

    Args:
        url: where PostgreSQL is asked, over a connection that is opened for it; `asking` opens it.
    """

    def __init__(self, engine: AsyncEngine, url: str, settings: Settings) -> None:
        self._silence_timeout = settings.participant_statement_check_after
        self._connect_timeout = settings.database_connect_timeout
        self._pending: dict[Connection | None, _PendingStatement] = {}
        self.probe_engine = create_database_engine(
            url,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={
                "timeout": self._connect_timeout,
                "command_timeout": self._connect_timeout,
            },
        )
        event.listen(engine.sync_engine, "before_cursor_execute", self._on_statement_start)
        event.listen(engine.sync_engine, "after_cursor_execute", self._on_statement_end)
        event.listen(engine.sync_engine, "handle_error", self._on_statement_error)

    @contextmanager
    def watch(self, connection: AsyncConnection) -> Iterator[None]:
        """Surround what is no statement, and waits for PostgreSQL all the same."""
        sync_connection = connection.sync_connection
        assert sync_connection is not None, "it has been begun"
        self._on_statement_start(sync_connection)
        try:
            yield
        finally:
            self._on_statement_end(sync_connection)

    def stop_watching(self, connection: AsyncConnection) -> None:
        """Nothing is waited for on it any more, however that ended."""
        self._pending.pop(connection.sync_connection, None)

    async def run(self, emit: Observer) -> None:
        """Look for what is lost, until cancelled; one fact for an outage, however long it is."""
        in_outage = False
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            try:
                lost = await self._terminate_lost()
            except Exception as error:  # noqa: BLE001 - the next look asks again
                if not in_outage:
                    emit(
                        DatabaseUnavailable(
                            operation=Operation.LOST_STATEMENTS, problem=describe_error(error)
                        )
                    )
                in_outage = True
                continue
            in_outage = False
            if lost:
                problem = f"{len(lost)} statements or their answers were lost on the way."
                emit(DatabaseUnavailable(operation=Operation.LOST_STATEMENTS, problem=problem))

    async def close(self) -> None:
        """Close what was opened here."""
        await self.probe_engine.dispose()

    async def _terminate_lost(self) -> AbstractSet[_PendingStatement]:
        """Ask twice, because an answer may be on its way for a moment."""
        pending = set(self._pending.values())
        if not self._silent_statements(pending):
            return set()
        # All of them at once: each look is a connection to PostgreSQL, and takes its time.
        waiting_for_client = await self._query_sessions(pending, _SELECT_WAITING_SESSIONS)
        for each in pending - waiting_for_client:
            each.last_activity = time.monotonic()  # at work
        if not self._silent_statements(waiting_for_client):
            return set()
        await asyncio.sleep(POLL_INTERVAL)
        waiting_for_client = self._silent_statements(waiting_for_client) & set(
            self._pending.values()
        )
        lost = (
            await self._query_sessions(waiting_for_client, _TERMINATE_WAITING_SESSIONS)
            if waiting_for_client
            else set()
        )
        for each in lost:
            each.driver.terminate()
        return lost

    def _silent_statements(
        self, pending: AbstractSet[_PendingStatement]
    ) -> AbstractSet[_PendingStatement]:
        return {each for each in pending if each.is_silent(self._silence_timeout)}

    async def _query_sessions(
        self, pending: AbstractSet[_PendingStatement], query: TextClause
    ) -> AbstractSet[_PendingStatement]:
        """Those whose sessions wait for us as well."""
        by_session = {each.session_id: each for each in pending if not each.driver.is_closed()}
        parameters = {
            "pids": [each for each in by_session if isinstance(each, int)],
            "application_names": [each for each in by_session if isinstance(each, str)],
            "application": APPLICATION_NAME,
        }
        async with (
            asyncio.timeout(self._connect_timeout),
            self.probe_engine.connect() as connection,
        ):
            rows = await connection.execute(query, parameters)
            sessions = {
                row.pid if row.application == APPLICATION_NAME else row.application for row in rows
            }
            return {by_session[each] for each in sessions}

    def _on_statement_start(self, connection: Connection, *_: object) -> None:
        self._pending[connection] = _PendingStatement(connection.connection.driver_connection)

    def _on_statement_end(self, connection: Connection, *_: object) -> None:
        self._pending.pop(connection, None)

    def _on_statement_error(self, context: ExceptionContext) -> None:
        self._pending.pop(context.connection, None)


def _byte_counts(driver: Any) -> _ByteCounts:
    transport = driver._transport  # noqa: SLF001 - asyncpg does not tell it
    sock = transport and transport.get_extra_info("socket")
    if not sock:
        return _ByteCounts()
    unsent = transport.get_write_buffer_size()
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return _ByteCounts(unsent)
    try:
        tcp_info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return _ByteCounts(unsent, *_TCP_INFO_BYTE_COUNTS.unpack_from(tcp_info, _TCP_INFO_OFFSET))
    except (OSError, struct.error):
        return _ByteCounts(unsent)  # it is closed, or this kernel does not tell


# bytes_acked and bytes_received of Linux's struct tcp_info, which only ever grows at its end.
_TCP_INFO_BYTE_COUNTS, _TCP_INFO_OFFSET = struct.Struct("=QQ"), 120

# Whatever state a session that waits for its client calls that: asyncpg sends statements in two
# parts.
_FROM_SESSIONS_WAITING_FOR_CLIENT = """
    FROM pg_stat_activity
    WHERE usename = current_user AND wait_event = 'ClientRead'
        AND (pid = ANY (:pids) AND application_name = :application
            OR application_name = ANY (:application_names))"""
_SELECT_WAITING_SESSIONS = text(
    "SELECT pid, application_name AS application" + _FROM_SESSIONS_WAITING_FOR_CLIENT
)
_TERMINATE_WAITING_SESSIONS = text(
    "SELECT pid, application_name AS application, pg_terminate_backend(pid)"
    + _FROM_SESSIONS_WAITING_FOR_CLIENT
)
