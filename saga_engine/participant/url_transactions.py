"""
Transactions of commands on a database that is given as a URL, over the driver.

A command costs two round trips besides the statements of its handler: BEGIN goes with the claim,
and COMMIT with the result (`pipelined_connection`). SQLAlchemy is used only where the handler takes
a connection. Connections stay checked out of the pool between commands while they are in use.
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from saga_engine.participant import barrier_statements
from saga_engine.participant.barrier import CommandResult
from saga_engine.participant.barrier_statements import WRONG_ROLE_SQLSTATES
from saga_engine.participant.driver_barrier_table import DriverBarrierTable, result_columns
from saga_engine.participant.driver_statements import DriverStatements
from saga_engine.participant.handler_connection import close_connection, open_connection
from saga_engine.participant.interfaces import original_error_of
from saga_engine.participant.lost_statements import LostStatementMonitor
from saga_engine.participant.pipelined_connection import PipelinedConnection
from saga_engine.postgres import keepalive
from saga_engine.postgres.pool import ConnectionPool, discard, release
from saga_engine.postgres.session_changes import ROLE_CHANGED_KEY, SESSION_CHANGED_KEY
from saga_engine.postgres.sqlalchemy_errors import (
    is_stale_connection,
    is_stale_statement,
    sqlstate_of,
)
from saga_engine.postgres.statement import Statement
from saga_engine.settings import Settings
from saga_engine.vocabulary import Command

T = TypeVar("T", bound="UrlTransaction")


class Session:
    """
    One connection, checked out of the pool.

    `is_broken` is true after an error that PostgreSQL has not sent: the connection may be in the
    middle of a response. It is also true after a handler has ended the transaction, because what it
    has started instead is unknown, and if the session has lost a prepared statement: others may be
    lost too. `has_timed_out` is true if that error was a timeout.
    """

    def __init__(
        self, connection: AsyncConnection, proxied: Any, monitor: LostStatementMonitor
    ) -> None:
        self.connection = connection
        self.proxied = proxied
        self.driver: PipelinedConnection = proxied.driver_connection
        self.used_at = time.monotonic()
        self.is_broken = self.has_timed_out = False
        self._monitor = monitor

    def __enter__(self) -> None:
        """Watch a statement of the driver, which may be lost."""
        self._monitor.start_watching(self.driver)

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._monitor.stop_watching(self.driver)
        if error is not None and not sqlstate_of(error):
            self.is_broken, self.has_timed_out = True, isinstance(error, TimeoutError)
        elif error is not None and is_stale_statement(error):
            self.is_broken = True

    def is_reusable(self) -> bool:
        """Whether another command can use it, after its transaction has ended."""
        return not (
            self.is_broken
            or not self.proxied.is_valid
            or self.driver.is_closed()
            or self.driver.is_in_transaction()
            or self.proxied.info.get(SESSION_CHANGED_KEY, False)
        )


class UrlTransaction:
    """
    A CommandTransaction; its properties are described there.

    Args:
        session: its connection.
        transaction: the driver's.
        database: opened it.
    """

    def __init__(self, session: Session, transaction: Any, database: "UrlTransactions") -> None:
        self.barrier = DriverBarrierTable(session.driver, database.statements, session)
        self.is_committed = False
        self._session = session
        self._transaction = transaction
        self._database = database
        self._connection: AsyncConnection | None = None
        self._handler_transaction: Any = None
        self._commit_failed = False
        session.proxied.info[ROLE_CHANGED_KEY] = database.role_unknown

    @property
    def connection(self) -> AsyncConnection:
        """What the handler gets; made when it is first needed."""
        if self._connection is None:
            session = self._session
            self._connection = open_connection(
                self._database.engine, session.proxied, self._transaction
            )
            self._handler_transaction = self._connection.get_transaction()
        return self._connection

    @property
    def is_active(self) -> bool:
        """Whether the handler has neither committed it nor rolled it back."""
        return self._connection is None or bool(self._handler_transaction.is_active)

    @property
    def is_connection_lost(self) -> bool:
        """Whether its connection was lost, or closed by the server."""
        return bool(self._session.driver.is_closed())

    async def commit_result(self, command: Command, result: CommandResult) -> bool:
        """Record the result and commit, in one round trip; see CommandTransaction."""
        driver = self._session.driver
        is_recorded = False
        # Unless the handler has ended it with a statement; a lost connection raises its own error.
        if driver.is_closed() or driver.is_in_transaction():
            await self._restore_settings()
            if driver.uses_pooler():
                is_recorded = await self.barrier.record_result(command, result)
            else:
                statement = self._database.statements.record_result_or_fail
                is_recorded = await self._commit_with(statement, result_columns(command, result))
        self._session.is_broken |= not is_recorded
        return is_recorded

    async def _commit_with(self, statement: Statement, columns: Mapping[str, str]) -> bool:
        """Execute a statement and commit; False if it had nothing to record."""
        driver = self._session.driver
        self._commit_failed = True  # until it has succeeded
        try:
            with self._session:
                await driver.commit_with(self._transaction, statement, columns)
        except Exception as error:
            if sqlstate_of(error) == _NOTHING_RECORDED and driver.is_in_transaction():
                return False
            raise
        self._commit_failed = False
        self.is_committed = True
        return True

    async def _restore_settings(self) -> None:
        """Restore the role and the encoding for the result, if a handler may have changed them."""
        session = self._session
        if session.proxied.info.get(ROLE_CHANGED_KEY):
            await self.barrier.execute(_RESTORE_ROLE, {"role": None})
        if session.driver.get_settings().client_encoding != _ENCODING:  # PostgreSQL reports it
            with session:
                await session.driver.execute(f"SET LOCAL client_encoding = '{_ENCODING}'")

    async def commit(self) -> None:
        """Commit, unless `commit_result` has."""
        if not self.is_committed:
            with self._session:
                await self._transaction.commit()

    async def roll_back(self) -> None:
        """Roll back; a connection on which this fails is closed, so PostgreSQL rolls back."""
        driver = self._session.driver
        if not driver.is_in_transaction() and not self._commit_failed:
            self._session.is_broken = True  # the handler has ended it
        if driver.is_closed() or self._session.is_broken:
            return
        try:
            with self._session:
                await self._roll_back()
        except Exception:  # noqa: BLE001 - the handler's exception decides the reply, not this one
            self._session.is_broken = True

    async def _roll_back(self) -> None:
        try:
            await self._transaction.rollback()
        except Exception:
            if not self._commit_failed:  # the handler has ended it, and may have started another
                raise
            if self._session.driver.is_in_transaction():
                await self._session.driver.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection of the handler."""
        if self._connection is not None:
            close_connection(self._connection, self._session.proxied)
            self._connection = None


class UrlTransactions:
    """
    Opens transactions on a database.

    Args:
        engine: created for the URL, with PipelinedConnection.
        monitor: ends the statements that are lost on the network.
        settings: how soon an idle connection must answer.
    """

    def __init__(
        self, engine: AsyncEngine, monitor: LostStatementMonitor, settings: Settings
    ) -> None:
        self.engine = engine
        self.statements = DriverStatements.for_schema(None)
        # Whether a handler has changed its role in a way that its statements do not reveal.
        self.role_unknown = False
        self._pool = ConnectionPool(engine, settings)
        self._monitor = monitor
        self._idle_sessions: list[Session] = []

    def use_schema(self, schema: str) -> None:
        """Use the barrier's table in a schema from now on."""
        self.statements = DriverStatements.for_schema(schema)

    @asynccontextmanager
    async def transaction(self, kind: type[T]) -> AsyncIterator[T]:
        """
        Open one transaction: committed when the block ends, rolled back when it raises.

        Args:
            kind: UrlTransaction, or a class of its that several commands share.
        """
        started_at = time.monotonic()
        session = await self._take_session()
        is_reusable = False
        try:
            started = await session.driver.begin_with_next_statement()
            transaction = kind(session, started, self)
            try:
                yield transaction
                await transaction.commit()
                is_reusable = True
            except Exception as error:
                await transaction.roll_back()
                is_reusable = self._may_reuse_after(error, session, started_at)
                raise
            finally:
                transaction.close()
        finally:
            await self._return_session(session, is_reusable=is_reusable)

    def _may_reuse_after(self, error: Exception, session: Session, started_at: float) -> bool:
        """Whether an error says nothing bad about its connection or all those of the pool."""
        if session.has_timed_out or _is_stale_connection(error):
            self._pool.invalidate_before(started_at)
        if sqlstate_of(error) in WRONG_ROLE_SQLSTATES:
            self.role_unknown = True
            return False  # its role may come from an earlier command
        return not is_stale_statement(original_error_of(error))

    async def _take_session(self) -> Session:
        """Take the session that was used last, or open one."""
        while self._idle_sessions:
            session = self._idle_sessions.pop()
            recently_used = time.monotonic() - session.used_at < keepalive.IDLE_PING_AFTER
            if recently_used and session.is_reusable() and self._pool.is_valid(session.proxied):
                return session
            await release(session.connection)  # the pool checks it before it is used again
        connection = await self._pool.connect()
        return Session(connection, await connection.get_raw_connection(), self._monitor)

    async def _return_session(self, session: Session, *, is_reusable: bool) -> None:
        """Keep a session for the next command, or close its connection."""
        self._monitor.stop_watching(session.driver)  # a statement that was cancelled
        if is_reusable and session.is_reusable():
            session.used_at = time.monotonic()
            self._idle_sessions.append(session)
            return
        await discard(session.connection)
        await session.connection.close()

    async def close(self) -> None:
        """Return the connections that are not in use to the pool."""
        while self._idle_sessions:
            await release(self._idle_sessions.pop().connection)


def _is_stale_connection(error: Exception) -> bool:
    """Whether an error shows that the connections of the pool are stale."""
    original_error = original_error_of(error)
    # A handler's timeout, for example on another service, says nothing about this database.
    if original_error is None or isinstance(original_error, TimeoutError):
        return False
    # A handler can make its own transaction read-only. Whether the server is a standby, the next
    # claim shows.
    return is_stale_connection(original_error) and (
        original_error is error or not sqlstate_of(original_error)
    )


_NOTHING_RECORDED = "22012"
"""The SQLSTATE of the division by zero in `record_result_or_fail`."""

_ENCODING = "UTF8"
"""A result is sent in the messages of `commit_with`, which do not depend on the session."""

_RESTORE_ROLE = Statement(barrier_statements.RESTORE_ROLE.text)
