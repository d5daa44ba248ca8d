"""Transactions of commands on an engine of SQLAlchemy that the user gives, with any driver."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from saga_engine.participant.barrier import CommandResult
from saga_engine.participant.barrier_statements import (
    SEARCH_PATH_STATEMENTS,
    WRONG_ROLE_SQLSTATES,
    BarrierStatements,
)
from saga_engine.participant.interfaces import original_error_of
from saga_engine.participant.sql_barrier_table import SqlBarrierTable
from saga_engine.postgres.pool import discard, release
from saga_engine.postgres.session_changes import ROLE_CHANGED_KEY
from saga_engine.postgres.sqlalchemy_errors import is_stale_statement, sqlstate_of
from saga_engine.settings import Settings
from saga_engine.vocabulary import Command


class EngineTransaction:
    """
    A CommandTransaction; its properties are described there.

    Args:
        connection: of the handler.
        transaction: of the connection.
        barrier: the barrier's table in it.
    """

    __slots__ = ("_transaction", "barrier", "connection")

    def __init__(
        self, connection: AsyncConnection, transaction: AsyncTransaction, barrier: SqlBarrierTable
    ) -> None:
        self.connection = connection
        self.barrier = barrier
        self._transaction = transaction

    @property
    def is_active(self) -> bool:
        """Whether the handler has neither committed it nor rolled it back."""
        return self._transaction.is_active

    @property
    def is_connection_lost(self) -> bool:
        """Whether its connection was lost, or closed by the server."""
        return self.connection.invalidated

    async def commit_result(self, command: Command, result: CommandResult) -> bool:
        """Record the result; the transaction commits at the end of its block."""
        return await self.barrier.record_result(command, result)


class EngineTransactions:
    """
    Opens transactions on an engine of the user's, at READ COMMITTED.

    Args:
        engine: stays the user's to dispose of.
        settings: how long a session may keep its locks after its client is gone.
    """

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._idle_timeout_ms = f"{int(settings.participant_handler_timeout * 1000)}"
        self._statements = SEARCH_PATH_STATEMENTS
        # Whether a handler has changed its role in a way that its statements do not reveal.
        self._role_unknown = False

    def use_schema(self, schema: str) -> None:
        """Use the barrier's table in a schema from now on."""
        self._statements = BarrierStatements.for_schema(schema)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[EngineTransaction]:
        """Open one transaction: committed when the block ends, rolled back when it raises."""
        connection = await self._engine.connect()
        try:
            connection = await connection.execution_options(isolation_level="READ COMMITTED")
            transaction = await connection.begin()
            barrier_table = await self._prepare_barrier_table(connection)
            try:
                yield EngineTransaction(connection, transaction, barrier_table)
            except Exception:
                await _roll_back(connection, transaction)
                raise
            await transaction.commit()
        except asyncio.CancelledError:
            # A cancelled statement may leave the socket in the middle of a response, and a rollback
            # would wait for the rest. PostgreSQL rolls back when the connection is closed.
            await discard(connection)
            raise
        except Exception as error:
            if sqlstate_of(error) in WRONG_ROLE_SQLSTATES and not connection.closed:
                self._role_unknown = True
                await discard(connection)  # its role may come from an earlier command
            elif is_stale_statement(original_error_of(error)) and not connection.closed:
                await discard(connection)  # other prepared statements may be lost too
            raise
        finally:
            await release(connection)

    async def _prepare_barrier_table(self, connection: AsyncConnection) -> SqlBarrierTable:
        """Prepare what recording a result needs, in one round trip."""
        initial_role = await connection.scalar(
            _SET_IDLE_TIMEOUT, {"milliseconds": self._idle_timeout_ms}
        )
        connection.info[ROLE_CHANGED_KEY] = self._role_unknown
        return SqlBarrierTable(connection, self._statements, initial_role)

    async def close(self) -> None:
        """Close nothing: every connection is in the pool of the user's engine."""


async def _roll_back(connection: AsyncConnection, transaction: AsyncTransaction) -> None:
    try:
        await transaction.rollback()
    except Exception:  # noqa: BLE001 - PostgreSQL rolls back when the connection is closed
        with suppress(Exception):  # the handler's exception decides the reply, not this one
            await discard(connection)


_SET_IDLE_TIMEOUT = text(
    "SELECT pg_catalog.current_setting('role') FROM (SELECT pg_catalog.set_config("
    "'idle_in_transaction_session_timeout', :milliseconds, true)) AS idle_timeout"
)
