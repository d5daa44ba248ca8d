"""
asyncpg's connection, with two round trips less for each transaction.

PostgreSQL reads its messages one after another, so BEGIN can be sent together with the statement
that follows it, and COMMIT together with the one before it. asyncpg has no call for that. Here the
messages of the other statement are put in front of those of asyncpg, in one write, and the answers
arrive in one response. If a statement fails, PostgreSQL skips the messages behind it, so that no
COMMIT follows a failure (PostgreSQL manual, 55.2.4). Values are parameters, never part of the SQL.

asyncpg skips the answers to the messages that it has not written. The requirements pin its version;
`tests/participant/test_pipelined_connection.py` checks each use. A connection on which an error
occurs that PostgreSQL has not sent must be closed: the messages may have been written, or not.

Through a pooler, which needs unnamed statements, everything is sent as asyncpg sends it.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg

from saga_engine.postgres.pgbouncer import PoolerAwareConnection
from saga_engine.postgres.rows import DriverRows
from saga_engine.postgres.statement import Statement


class PipelinedConnection(PoolerAwareConnection):
    """A connection whose transactions begin and end together with a statement."""

    _defers_begin: bool = False
    _unsent_begin: bytes = b""
    _sent_with_commit: bytes = b""

    async def begin_with_next_statement(self) -> Any:
        """
        Begin a transaction whose BEGIN is sent together with the next statement.

        Returns:
            The transaction of asyncpg, whose `rollback` rolls it back.
        """
        transaction = self.transaction()
        self._defers_begin = not self.uses_pooler()
        try:
            await transaction.start()
        finally:
            self._defers_begin = False
        return transaction

    async def commit_with(
        self, transaction: Any, statement: Statement, parameters: Mapping[str, str]
    ) -> None:
        """
        Execute a statement that returns no rows, and commit if it succeeds.

        Args:
            transaction: that of `begin_with_next_statement`.
            statement: its parameters are sent as text, which PostgreSQL converts to their types.

        Raises:
            PostgresError: the statement failed, and the transaction is still open; or the COMMIT
                failed, and the transaction is rolled back.
        """
        if self.uses_pooler():
            await self.execute_statement(statement, parameters)
            await transaction.commit()
            return
        prepared = await self._prepare_once(statement)
        await self._prepare_once(_COMMIT)
        values = [parameters[name].encode() for name in statement.positional[1]]
        self._sent_with_commit = _execution(prepared.get_name(), values)
        try:
            await transaction.commit()
        except asyncpg.PostgresError as error:
            self.forget_stale_statements(error)
            raise
        finally:
            self._sent_with_commit = b""

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open, or its BEGIN is not sent yet; not if it is closed."""
        return not self.is_closed() and (bool(self._unsent_begin) or super().is_in_transaction())

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's
        """Execute as asyncpg does, except for the BEGIN and the COMMIT of this class."""
        if self._defers_begin and query.startswith("BEGIN"):
            self._unsent_begin = _BEGIN
            return "BEGIN"
        if self._sent_with_commit and query.startswith("COMMIT"):
            commit = await self._prepare_once(_COMMIT)
            with _written_together(self._transport, self._sent_with_commit):
                await commit.fetch()
            return "COMMIT"
        await self._send_begin()
        return await super().execute(query, *args, timeout=timeout)

    async def execute_statement(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> DriverRows:
        """Execute one statement, together with a BEGIN that was not sent yet."""
        if self._unsent_begin and statement.positional[0] in self._prepared_by_sql:
            begin, self._unsent_begin = self._unsent_begin, b""
            with _written_together(self._transport, begin):
                return await super().execute_statement(statement, parameters)
        return await super().execute_statement(statement, parameters)

    async def _get_statement(self, query: str, *args: Any, **options: Any) -> Any:
        """Prepare for every method of asyncpg that executes one statement."""
        await self._send_begin()
        return await super()._get_statement(query, *args, **options)

    async def _send_begin(self) -> None:
        if self._unsent_begin:
            self._unsent_begin = b""
            await super().execute("BEGIN")

    async def _prepare_once(self, statement: Statement) -> Any:
        sql = statement.positional[0]
        if sql not in self._prepared_by_sql:
            self._cache_prepared(sql, await self.prepare(sql))
        return self._prepared_by_sql[sql]


@contextmanager
def _written_together(transport: Any, messages: bytes) -> Iterator[None]:
    """Write messages in front of the next write of the block; none, if it writes nothing."""
    write = transport.write

    def write_both(data: bytes) -> None:
        del transport.write
        write(messages + bytes(data))

    try:
        transport.write = write_both
    except AttributeError:  # the transports of another event loop may have no such attribute
        write(messages)
        try:
            yield
        except BaseException:
            transport.abort()  # nothing may have followed the messages
            raise
        return
    try:
        yield
    finally:
        transport.__dict__.pop("write", None)


def _message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", len(content) + 4) + content


def _execution(name: str, values: Sequence[bytes]) -> bytes:
    """The messages Bind and Execute of a prepared statement, with its parameters as text."""
    parameters = b"".join(struct.pack("!i", len(value)) + value for value in values)
    bind = b"\0%s\0%s%s%s" % (
        name.encode(),
        struct.pack("!hh", 0, len(values)),
        parameters,
        struct.pack("!h", 0),
    )
    return _message(b"B", bind) + _message(b"E", b"\0" + struct.pack("!i", 0))


_BEGIN = _message(b"P", b"\0BEGIN\0" + struct.pack("!h", 0)) + _execution("", [])
_COMMIT = Statement("COMMIT")
