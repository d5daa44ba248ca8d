import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.embedded.process import free_port
from saga_engine.participant import barrier, lost_statements
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.participant.errors import Rejected
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable
from saga_engine.vocabulary import BarrierResult
from tests.kit.payments_participant import EventList, make_command
from tests.kit.programs import sleep
from tests.kit.proxy import TcpProxy, running_proxy


async def test_the_displayed_url_never_contains_the_password():
    url = f"postgresql+asyncpg://me:hunter1@/payments?host=127.0.0.1:{free_port()}&password=hunter2"
    theirs = create_async_engine(url)
    for given in (url, theirs):
        database = ParticipantDatabase(given, Settings())
        problem = await database.find_problem()
        assert problem is not None
        assert "me@127.0.0.1" in problem
        assert "hunter" not in problem
        await database.close()
    await theirs.dispose()


async def entered(database: ParticipantDatabase, asked):
    """The result of the barrier once no other transaction has the command in progress."""
    while True:
        try:
            async with database.transaction() as tx:
                return await barrier.claim_command(tx, asked, compensates_local_action=False)
        except barrier.CommandInProgress:
            pass


async def test_a_client_that_is_cut_off_does_not_lock_its_command_forever():
    charge = make_command()

    async def be_cut_off(lost: ParticipantDatabase, proxy: TcpProxy, other: ParticipantDatabase):
        async with lost.transaction() as tx:
            assert await barrier.claim_command(tx, charge, compensates_local_action=False) is None
            proxy.drop_open_connections()
            async with asyncio.timeout(20):
                assert await entered(other, charge) is None

    async with PostgresServer(use_tcp=True) as server, running_proxy(server.url) as proxy:
        lost = ParticipantDatabase(proxy.url, Settings(participant_handler_timeout=1))
        other = ParticipantDatabase(server.url, Settings())
        await lost.prepare(create_barrier=True)
        with pytest.raises((TimeoutError, DBAPIError)):
            await be_cut_off(lost, proxy, other)
        async with asyncio.timeout(20), lost.transaction() as tx:
            answer = await barrier.claim_command(tx, charge, compensates_local_action=False)
            assert answer is not None
            assert answer.barrier_result is BarrierResult.REPEATED
        await lost.close()
        await other.close()


async def test_a_timeout_of_another_service_closes_no_connection(database_url):
    async def session(database):
        async with database.transaction() as tx:
            return await tx.scalar(text("SELECT pg_backend_pid()"))

    database = ParticipantDatabase(database_url, Settings())
    first = await session(database)
    with pytest.raises(TimeoutError):
        async with database.transaction():
            raise TimeoutError
    assert await session(database) == first
    await database.close()


@asynccontextmanager
async def watched(*, patience=0.5):
    """A participant's database behind a proxy, its watchdog awake; and the server's own URL."""
    emitted = EventList()
    async with PostgresServer(use_tcp=True) as server, running_proxy(server.url) as proxy:
        database = ParticipantDatabase(
            proxy.url, Settings(participant_statement_check_after=patience)
        )
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(database.run_lost_statement_monitor(emitted))
            yield database, proxy, emitted
            watching.cancel()
        await database.close()


async def hold(database, then, seconds=8):
    """A transaction that locks something, and in which something befalls it then."""
    async with asyncio.timeout(seconds), database.transaction() as tx:
        await tx.execute(text("SELECT pg_advisory_xact_lock(7)"))
        await then(tx)


async def is_free(database, seconds=8):
    """Whether what `hold` has locked is free again."""
    async with asyncio.timeout(seconds), database.transaction() as tx:
        return await tx.scalar(text("SELECT pg_try_advisory_xact_lock(7)"))


@pytest.mark.parametrize("given", ["a URL", "an engine"])
async def test_a_rejected_handler_is_rolled_back_and_its_connection_is_reused(given, database_url):
    engine = create_async_engine(database_url)
    database = ParticipantDatabase(database_url if given == "a URL" else engine, Settings())

    async def reject():
        async with database.transaction() as tx:
            await tx.execute(text("CREATE TABLE undone ()"))
            raise Rejected("no", "No.")

    with pytest.raises(Rejected):
        await reject()
    async with database.transaction() as tx:
        assert await tx.scalar(text("SELECT to_regclass('undone')")) is None
    await database.close()
    await engine.dispose()


async def test_a_lost_rollback_is_ended_and_the_command_stays_rejected():
    async with watched() as (database, proxy, emitted):

        async def reject(_):
            proxy.drop_open_connections()
            raise Rejected("no", "No.")

        with pytest.raises(Rejected):
            await hold(database, reject)
        assert await is_free(database)
        assert emitted.of_type(DatabaseUnavailable)


@pytest.mark.parametrize("when", ["in a statement", "in the commit"])
async def test_a_lost_statement_is_ended_on_both_sides(when):
    async with watched() as (database, proxy, emitted):

        async def vanish(tx):
            proxy.drop_open_connections()
            if when == "in a statement":
                await tx.execute(text("SELECT 1"))

        for _ in range(2):
            with pytest.raises(DBAPIError):
                await hold(database, vanish)
            assert await is_free(database)
        assert {trouble.problem for trouble in emitted.of_type(DatabaseUnavailable)} == {
            "1 statements or their responses were lost on the network."
        }


async def test_a_statement_whose_response_is_lost_is_ended_on_both_sides():
    async with watched() as (database, proxy, _):

        async def lose_the_answer(tx):
            proxy.drop_server_data()  # for a moment, and no connection is cut
            asyncio.get_running_loop().call_later(
                0.3, setattr, proxy.from_server, "dropping", False
            )
            await tx.execute(text("SELECT 1"))

        with pytest.raises(DBAPIError):
            await hold(database, lose_the_answer)
        assert await is_free(database)


async def test_a_statement_that_is_being_executed_may_take_long():
    async with watched() as (database, _, emitted), database.transaction() as tx:
        await tx.execute(text("SELECT pg_sleep(3)"))
        assert await tx.scalar(text("SELECT 1")) == 1
    assert not emitted.of_type(DatabaseUnavailable)


async def test_executing_statements_are_checked_once_per_silence_timeout():
    async with watched(patience=2) as (database, proxy, _):

        async def work():
            async with database.transaction() as tx:
                await tx.execute(text("SELECT pg_sleep(5)"))

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(work())
                await sleep(0.5)
        assert 3 < proxy.connections <= 3 + 3


@pytest.mark.parametrize("way", ["a wire", "a proxy that buffers"])
async def test_a_large_statement_may_take_as_long_as_it_needs_to_arrive(way, monkeypatch):
    large = "x" * 4_000_000
    async with watched() as (database, proxy, emitted):
        if way == "a wire":
            proxy.limit_receive_buffer()
            monkeypatch.setattr(lost_statements, "MIN_UPLOAD_RATE", 1e9)
        proxy.bytes_per_s = 1_000_000
        async with database.transaction() as tx:
            stored = await tx.scalar(text("SELECT length(:large)"), {"large": large})
    assert stored == len(large)
    assert not emitted.of_type(DatabaseUnavailable)


async def test_a_handler_cancelled_in_a_statement_leaves_no_pending_statement():
    async with watched() as (database, _, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), database.transaction() as tx:
                await tx.execute(text("SELECT pg_sleep(5)"))
        assert not database._lost_statements._pending


@pytest.mark.parametrize("number", [1, "none"])
async def test_a_handler_that_pauses_keeps_its_transaction(number):
    async with watched() as (database, _, emitted), database.transaction() as tx:
        with suppress(DBAPIError):  # of which the server never hears
            await tx.execute(text("SELECT CAST(:number AS integer)"), {"number": number})
        await sleep(4)
        assert await tx.scalar(text("SELECT 2")) == 2
    assert not emitted.of_type(DatabaseUnavailable)
