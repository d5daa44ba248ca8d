"""
Finding statements that were lost on the network, by asking PostgreSQL over another connection.

A handler's statement may take long, so its duration says nothing. But if the statement or its
response is lost between two hosts that are both up, neither side notices, and a few such statements
use every slot of a process. PostgreSQL knows: if its session waits for the client while the
client waits for it, the statement is lost. Both sides are then closed, which frees its locks.

PostgreSQL also waits for the client while it reads a large statement, so a statement is not lost
while bytes are moving. A proxy may have taken all the bytes and forward them slowly, which neither
end can see. So a statement that has sent more bytes gets more time.
"""

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, event, text
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from saga_engine.postgres.connect import create_database_engine
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable, Observer, describe_error
from saga_engine.telemetry.operations import Operation

POLL_INTERVAL = 0.5
"""Seconds between two checks of the pending statements."""

MIN_UPLOAD_RATE = 125_000
"""Bytes per second at which sent bytes are assumed to reach PostgreSQL at least: 1 Mbit/s."""

APPLICATION_NAME = "saga-engine participant"
"""Only sessions with this name are ended; behind a pooler each connection has a unique name."""


class _ByteCounts(NamedTuple):
    """The bytes that a connection has moved so far."""

    unsent: int = 0
    acknowledged: int = 0
    received: int = 0


class _PendingStatement:
    """A statement on an asyncpg connection whose response has not arrived."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.last_activity = time.monotonic()
        self._counts_at_start = self._last_counts = _byte_counts(driver)

    @property
    def session_id(self) -> int | str:
        """
        Identifies the session in PostgreSQL: its process id, or behind a pooler a unique name.

        Behind a pooler the process id is the pooler's, and the session differs by transaction.
        """
        session_id: int | str = self.driver.session_name or self.driver.get_server_pid()
        return session_id

    def is_silent(self, silence_timeout: float) -> bool:
        """Whether no byte has moved for the timeout plus the time that the sent bytes need."""
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
    Watches the statements of one engine; `run` ends those that are lost.

    Args:
        engine: the engine to watch.
        url: of the same database, for the connections that ask PostgreSQL (`probe_engine`).
        settings: the silence timeout and the connect timeout.
    """

    def __init__(self, engine: AsyncEngine, url: str, settings: Settings) -> None:
        self._silence_timeout = settings.participant_statement_check_after
        self._connect_timeout = settings.database_connect_timeout
        self._pending: dict[Any, _PendingStatement] = {}  # by the connection of the driver
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

    def start_watching(self, driver: Any) -> None:
        """Watch a statement that was sent, or is about to be, without SQLAlchemy."""
        self._pending[driver] = _PendingStatement(driver)

    def stop_watching(self, driver: Any) -> None:
        """Forget a connection's pending statement."""
        self._pending.pop(driver, None)

    async def run(self, emit: Observer) -> None:
        """End lost statements, until cancelled. An outage emits one event, however long it is."""
        in_outage = False
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            try:
                lost = await self._terminate_lost()
            except Exception as error:  # noqa: BLE001 - the next check asks again
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
                problem = f"{len(lost)} statements or their responses were lost on the network."
                emit(DatabaseUnavailable(operation=Operation.LOST_STATEMENTS, problem=problem))

    async def close(self) -> None:
        """Close what was opened here."""
        await self.probe_engine.dispose()

    async def _terminate_lost(self) -> AbstractSet[_PendingStatement]:
        """Ask twice: a response may be on its way at the first time."""
        pending = set(self._pending.values())
        if not self._silent_statements(pending):
            return set()
        # All of them at once: each check opens a connection to PostgreSQL.
        waiting_for_client = await self._query_sessions(pending, _SELECT_WAITING_SESSIONS)
        for each in pending - waiting_for_client:
            each.last_activity = time.monotonic()  # PostgreSQL is executing it
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
        """The statements whose sessions wait for the client."""
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
        self.start_watching(connection.connection.driver_connection)

    def _on_statement_end(self, connection: Connection, *_: object) -> None:
        self.stop_watching(connection.connection.driver_connection)

    def _on_statement_error(self, context: ExceptionContext) -> None:
        connection = context.connection
        if connection is not None and not (connection.closed or connection.invalidated):
            self.stop_watching(connection.connection.driver_connection)


def _byte_counts(driver: Any) -> _ByteCounts:
    transport = driver._transport  # noqa: SLF001 - asyncpg has no public access to it
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
        return _ByteCounts(unsent)  # it is closed, or this kernel has no such option


# bytes_acked and bytes_received of Linux's struct tcp_info, which is only extended at its end.
_TCP_INFO_BYTE_COUNTS, _TCP_INFO_OFFSET = struct.Struct("=QQ"), 120

# The state of the session is not checked: asyncpg sends a statement in two parts.
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
