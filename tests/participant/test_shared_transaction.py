"""No handler of a batch ends the transaction, or leaves a setting to the next one unseen."""

import pytest
from sqlalchemy import text

from saga_engine.participant.shared_transaction import TransactionEndRefused
from tests.kit.payments_participant import booking_rows

INSERT = text("INSERT INTO bookings VALUES ('o-1', 1)")


@pytest.mark.parametrize("ending", ["commit", "rollback", "COMMIT", "END", "ABORT; SELECT 1"])
async def test_an_end_by_a_handler_is_refused_and_nothing_is_committed(
    url_database, user_engine, ending
):
    async def end(connection):
        if ending.islower():
            await getattr(connection, ending)()
        else:
            await (await connection.get_raw_connection()).driver_connection.execute(ending)

    async def end_it():
        async with url_database.shared_transaction() as tx:
            connection = tx.open_connection()
            await connection.execute(INSERT)
            assert tx.is_usable
            with pytest.raises(TransactionEndRefused):
                await end(connection)
            assert not tx.is_usable
            raise LookupError

    with pytest.raises(LookupError):
        await end_it()
    assert await booking_rows(user_engine) == []
    async with url_database.shared_transaction() as tx:
        await tx.open_connection().execute(INSERT)
    assert await booking_rows(user_engine) == [("o-1", 1)]


async def session_of(tx):
    return await tx.scalar(text("SELECT pg_backend_pid()"))


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
async def test_an_end_that_is_prepared_on_the_session_is_refused_too(
    url_database, user_engine, ending
):
    async def prepare_it():
        async with url_database.transaction() as tx:
            for statement in (ending, "BEGIN"):
                await tx.connection.execute(text(statement))
            sessions.append(await session_of(tx.connection))
            raise LookupError

    async def end_it():
        async with url_database.shared_transaction() as tx:
            connection = tx.open_connection()
            sessions.append(await session_of(connection))
            await connection.execute(INSERT)
            with pytest.raises(TransactionEndRefused):
                await connection.execute(text(ending))
            assert not tx.is_usable
            raise LookupError

    sessions: list[int] = []
    for use in (prepare_it, end_it):
        with pytest.raises(LookupError):
            await use()
    assert sessions == sessions[:1] * 2
    assert await booking_rows(user_engine) == []


async def test_a_transaction_that_was_ended_below_the_driver_is_not_usable(url_database):
    async def end_it():
        async with url_database.shared_transaction() as tx:
            connection = tx.open_connection()
            sessions.append(await session_of(connection))
            assert tx.is_usable
            driver = (await connection.get_raw_connection()).driver_connection
            await driver._protocol.query("COMMIT", None)
            assert not tx.is_usable
            raise LookupError

    sessions: list[int] = []
    with pytest.raises(LookupError):
        await end_it()
    async with url_database.shared_transaction() as tx:
        assert await session_of(tx.open_connection()) not in sessions


async def test_each_handler_gets_a_connection_of_its_own(url_database):
    async with url_database.shared_transaction() as tx:
        first = tx.open_connection()
        await first.begin_nested()
        tx.close_connection()
        second = tx.open_connection()
        assert first.closed
        assert not second.in_nested_transaction()
        assert await second.scalar(text("SELECT 1")) == 1


async def test_effects_since_the_savepoint_are_rolled_back(url_database, user_engine):
    async with url_database.shared_transaction() as tx:
        await tx.set_savepoint()
        await tx.open_connection().execute(INSERT)
        await tx.set_savepoint()
        await tx.open_connection().execute(text("INSERT INTO bookings VALUES ('o-2', 1)"))
        await tx.roll_back_to_savepoint()
    assert await booking_rows(user_engine) == [("o-1", 1)]


async def test_a_change_over_the_driver_is_seen(url_database):
    async with url_database.shared_transaction() as tx:
        raw = await tx.open_connection().get_raw_connection()
        assert not tx.state_changed
        await raw.driver_connection.fetch("SELECT set_config('search_path', 'tenant', true)")
        assert tx.state_changed
    async with url_database.shared_transaction() as tx:
        assert not tx.state_changed
