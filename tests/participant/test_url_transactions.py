"""The transaction of a command on a database that is given as a URL: it commits once, or not."""

import asyncio
from collections import Counter

import asyncpg
import pytest
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy import text

from saga_engine.participant.barrier import BatchClaim, CommandResult
from saga_engine.vocabulary import Outcome
from tests.kit.events import EventRecorder
from tests.kit.misbehaving_participant import HandlerChoice, MisbehavingParticipant
from tests.kit.payments_participant import DirectExecutor, make_command

DONE = CommandResult(Outcome.SUCCEEDED, b'"done"')

DIVIDE_AT_COMMIT = (
    "CREATE TABLE checked ()",
    """
    CREATE FUNCTION divide() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM 1 / 0; RETURN NULL; END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON checked DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION divide()
    """,
)


async def recorded_reply(database, command):
    async with database.transaction() as tx:
        row = await tx.barrier.select_result(command)
        return row and row.reply


async def recorded_outcome(database, command):
    async with database.transaction() as tx:
        row = await tx.barrier.select_result(command)
        return row and row.outcome


async def test_a_command_without_a_connection_costs_two_round_trips(url_database, monkeypatch):
    async def charge(_: HandlerChoice) -> str:
        return "charged"

    executor = DirectExecutor(MisbehavingParticipant(charge), url_database, EventRecorder())
    assert (await executor(make_command()))[0] is Outcome.SUCCEEDED  # prepares the statements
    calls: Counter[str] = Counter()

    def counting(name, method):
        async def counted(*args, **options):
            calls[name] += 1
            return await method(*args, **options)

        return counted

    for owner, name in ((PreparedStatement, "fetch"), (asyncpg.Connection, "execute")):
        monkeypatch.setattr(owner, name, counting(name, getattr(owner, name)))
    charge_again = make_command()
    assert (await executor(charge_again))[0] is Outcome.SUCCEEDED
    assert calls == {"fetch": 2}
    monkeypatch.undo()
    assert await recorded_outcome(url_database, charge_again) == "succeeded"


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
async def test_nothing_is_committed_after_a_handler_has_ended_the_transaction(url_database, ending):
    charge = make_command()

    async def end_and_go_on():
        async with url_database.transaction() as tx:
            assert await tx.barrier.claim(charge)
            await tx.connection.execute(text(ending))
            await tx.connection.execute(text("BEGIN"))
            await tx.connection.execute(text("CREATE TABLE later ()"))
            assert not await tx.commit_result(charge, DONE)
            raise LookupError

    with pytest.raises(LookupError):
        await end_and_go_on()
    expected = "failed" if ending == "COMMIT" else None
    assert await recorded_outcome(url_database, charge) == expected
    async with url_database.transaction() as tx:
        assert await tx.connection.scalar(text("SELECT to_regclass('later')")) is None


async def test_nothing_is_committed_if_the_row_of_the_command_is_gone(url_database):
    charge = make_command()

    async def lose_the_row():
        async with url_database.transaction() as tx:
            assert await tx.barrier.claim(charge)
            await tx.connection.execute(text("DELETE FROM saga_barrier"))
            assert not await tx.commit_result(charge, DONE)
            raise LookupError

    with pytest.raises(LookupError):
        await lose_the_row()
    assert await recorded_outcome(url_database, charge) is None


async def test_a_commit_that_divides_by_zero_is_an_error_of_the_commit(url_database):
    charge = make_command()
    async with url_database.transaction() as tx:
        for statement in DIVIDE_AT_COMMIT:
            await tx.connection.execute(text(statement))

    async def commit():
        async with url_database.transaction() as tx:
            assert await tx.barrier.claim(charge)
            await tx.connection.execute(text("INSERT INTO checked DEFAULT VALUES"))
            await tx.commit_result(charge, DONE)

    with pytest.raises(asyncpg.DivisionByZeroError):
        await commit()
    assert await recorded_outcome(url_database, charge) is None


async def test_a_connection_with_an_interrupted_statement_is_not_used_again(url_database):
    async def session(tx):
        return await tx.connection.scalar(text("SELECT pg_backend_pid()"))

    found = []

    async def break_off():
        async with asyncio.timeout(0.2), url_database.transaction() as tx:
            found.append(await session(tx))
            await tx.connection.execute(text("SELECT pg_sleep(60)"))

    with pytest.raises(TimeoutError):
        await break_off()
    async with url_database.transaction() as tx:
        assert await session(tx) not in found


@pytest.mark.parametrize("statements", [["COMMIT"], ["ROLLBACK"], ["COMMIT", "BEGIN"]])
async def test_a_connection_whose_transaction_a_handler_has_ended_is_not_used_again(
    url_database, statements
):
    async def session(tx):
        return await tx.connection.scalar(text("SELECT pg_backend_pid()"))

    async def end_it():
        async with url_database.transaction() as tx:
            charge = make_command()
            assert await tx.barrier.claim(charge)
            found.append(await session(tx))
            for statement in statements:
                await tx.connection.execute(text(statement))
            assert not await tx.commit_result(charge, DONE)
            raise LookupError

    found: list[int] = []
    with pytest.raises(LookupError):
        await end_it()
    async with url_database.transaction() as tx:
        assert await session(tx) not in found


@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL client_encoding = 'LATIN1'",
        "SET client_encoding = 'LATIN1'",
        "DO $$ BEGIN PERFORM set_config('client_encoding', 'LATIN1', true); END $$",
    ],
)
async def test_a_result_is_recorded_unchanged_in_any_encoding_of_the_handler(
    url_database, statement
):
    done = CommandResult(Outcome.SUCCEEDED, '"Zürich 5 €"'.encode())
    alone, shared = make_command(), make_command()
    async with url_database.transaction() as tx:
        assert await tx.barrier.claim(alone)
        await tx.connection.execute(text(statement))
        assert await tx.commit_result(alone, done)
    async with url_database.shared_transaction() as tx:
        claim = BatchClaim(shared, compensates_local_action=False)
        assert await tx.barrier.claim_all([claim]) == [0]
        await tx.open_connection().execute(text(statement))
        assert await tx.commit_results([(shared, done)])
    for command in (alone, shared):
        assert await recorded_reply(url_database, command) == done.body.decode()


async def test_a_connection_whose_driver_has_read_types_is_used_again(url_database):
    """asyncpg sets `jit` before it reads the types of a statement, and restores it."""
    found = []
    for _ in range(2):
        async with url_database.transaction() as tx:
            charge = make_command()
            assert await tx.barrier.claim(charge)
            names = text("SELECT pg_backend_pid() WHERE CAST(:names AS name[]) IS NOT NULL")
            found.append(await tx.connection.scalar(names, {"names": ["a"]}))
            assert await tx.commit_result(charge, DONE)
    assert found[0] == found[1]
