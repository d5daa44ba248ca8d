"""A transaction costs two round trips, and nothing is committed after a statement that failed."""

from collections import Counter

import asyncpg
import pytest
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy.engine import make_url

from saga_engine.participant.pipelined_connection import PipelinedConnection, _written_together
from saga_engine.postgres.statement import Statement

INSERT = Statement("INSERT INTO notes VALUES (:number, :note) RETURNING number")
UPDATE = Statement("UPDATE notes SET note = :note WHERE number = CAST(:number AS integer)")
DIVIDE = Statement("UPDATE notes SET number = 1 / CAST(:number AS integer)")


@pytest.fixture
async def connection(database_url):
    url = make_url(database_url).set(drivername="postgresql")
    connection = await asyncpg.connect(
        url.render_as_string(hide_password=False), connection_class=PipelinedConnection
    )
    await connection.execute(
        "CREATE TABLE notes (number integer, note text UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    )
    yield connection
    await connection.close()


async def insert(connection, number, note="before"):
    """Begin with an INSERT."""
    transaction = await connection.begin_with_next_statement()
    await connection.execute_statement(INSERT, {"number": number, "note": note})
    return transaction


async def notes(connection):
    return [tuple(row) for row in await connection.fetch("SELECT * FROM notes ORDER BY number")]


async def test_begin_and_commit_cost_no_round_trip_of_their_own(connection, monkeypatch):
    async def write_one(number):
        transaction = await insert(connection, number)
        assert connection.is_in_transaction()
        parameters = {"number": f"{number}", "note": f"it's {number}"}
        await connection.commit_with(transaction, UPDATE, parameters)
        assert not connection.is_in_transaction()

    await write_one(1)  # which prepares the statements
    calls: Counter[str] = Counter()
    for owner, name in ((PreparedStatement, "fetch"), (asyncpg.Connection, "execute")):
        monkeypatch.setattr(owner, name, counting(calls, name, getattr(owner, name)))
    await write_one(2)
    monkeypatch.undo()
    assert calls == {"fetch": 2}
    assert await notes(connection) == [(1, "it's 1"), (2, "it's 2")]


def counting(calls, name, method):
    """A method that waits for an answer of PostgreSQL, and counts that."""

    async def counted(*args, **options):
        calls[name] += 1
        return await method(*args, **options)

    return counted


@pytest.mark.parametrize("note", ["'); DROP TABLE notes; --", "\\", "", "ä\n$1"])
async def test_a_text_is_a_value_and_never_sql(connection, note):
    transaction = await insert(connection, 1)
    await connection.commit_with(transaction, UPDATE, {"number": "1", "note": note})
    assert await notes(connection) == [(1, note)]


async def test_a_statement_that_fails_is_not_followed_by_the_commit(connection):
    transaction = await insert(connection, 1)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await connection.commit_with(transaction, DIVIDE, {"number": "0"})
    assert connection.is_in_transaction()
    await connection.execute("ROLLBACK")
    assert await notes(connection) == []


async def test_a_commit_that_fails_rolls_back_and_leaves_a_usable_connection(connection):
    await connection.execute("INSERT INTO notes VALUES (0, 'taken')")
    transaction = await insert(connection, 1)
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.commit_with(transaction, UPDATE, {"number": "1", "note": "taken"})
    assert not connection.is_in_transaction()
    assert await notes(connection) == [(0, "taken")]


async def test_statements_that_the_server_has_dropped_are_prepared_again(connection):
    for number in (1, 2, 3):
        transaction = await insert(connection, number)
        parameters = {"number": f"{number}", "note": f"{number}"}
        if number == 2:
            await connection.execute("DEALLOCATE ALL")
            with pytest.raises(asyncpg.InvalidSQLStatementNameError):
                await connection.commit_with(transaction, UPDATE, parameters)
            await connection.execute("ROLLBACK")
        else:
            await connection.commit_with(transaction, UPDATE, parameters)
    assert await notes(connection) == [(1, "1"), (3, "3")]


async def test_any_other_statement_is_executed_in_the_transaction_too(connection):
    transaction = await connection.begin_with_next_statement()
    assert await connection.fetchval("SELECT 1") == 1
    assert connection.is_in_transaction()
    await transaction.rollback()
    transaction = await connection.begin_with_next_statement()
    await connection.execute("INSERT INTO notes VALUES (1, 'undone')")
    await transaction.rollback()
    assert await notes(connection) == []


async def test_a_statement_that_is_not_sent_leaves_no_message_for_the_next_one(connection):
    transaction = await insert(connection, 1)
    await transaction.rollback()
    await connection.begin_with_next_statement()
    with pytest.raises(asyncpg.DataError):
        await connection.execute_statement(INSERT, {"number": "one", "note": "x"})
    assert await connection.fetchval("SELECT 2") == 2
    assert not connection.is_in_transaction()


class SlottedTransport:
    """A transport of another event loop, whose methods cannot be replaced."""

    __slots__ = ("aborted", "written")

    def __init__(self):
        self.written = []
        self.aborted = False

    def write(self, data):
        self.written.append(data)

    def abort(self):
        self.aborted = True


def test_messages_are_written_in_front_with_a_transport_of_any_event_loop():
    transport = SlottedTransport()
    with _written_together(transport, b"BEGIN"):
        transport.write(b"SELECT")
    assert (transport.written, transport.aborted) == ([b"BEGIN", b"SELECT"], False)
    with pytest.raises(LookupError), _written_together(transport, b"BEGIN"):
        raise LookupError
    assert transport.aborted
