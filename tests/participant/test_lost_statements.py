"""A statement that is lost on the network is ended; one that PostgreSQL executes is not."""

import asyncio
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from saga_engine.participant import lost_statements
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.protocol.rejection import Rejected
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable
from tests.kit.events import EventRecorder
from tests.kit.participant_locks import hold_lock, is_lock_free
from tests.kit.programs import sleep
from tests.kit.proxy import running_proxy
from tests.kit.servers import running_postgres


@pytest.fixture(scope="module")
async def server():
    async with running_postgres(use_tcp=True) as server:
        yield server


@pytest.fixture
def watched(server):
    """Open a participant's database behind a proxy, its watchdog awake."""

    @asynccontextmanager
    async def open_database(*, patience=0.5):
        emitted = EventRecorder()
        async with running_proxy(server.url) as proxy:
            database = ParticipantDatabase(
                proxy.url, Settings(participant_statement_check_after=patience)
            )
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(database.run_lost_statement_monitor(emitted))
                yield database, proxy, emitted
                watching.cancel()
            await database.close()

    return open_database


async def test_a_lost_rollback_is_ended_and_the_command_stays_rejected(watched):
    async with watched() as (database, proxy, emitted):

        async def reject(_):
            proxy.drop_open_connections()
            raise Rejected("no", "No.")

        with pytest.raises(Rejected):
            await hold_lock(database, reject)
        assert await is_lock_free(database)
        assert emitted.matching(DatabaseUnavailable)


@pytest.mark.parametrize("when", ["in a statement", "in the commit"])
async def test_a_lost_statement_is_ended_on_both_sides(watched, when):
    async with watched() as (database, proxy, emitted):

        async def vanish(tx):
            proxy.drop_open_connections()
            if when == "in a statement":
                await tx.connection.execute(text("SELECT 1"))

        for _ in range(2):
            closed = asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError
            with pytest.raises((DBAPIError, *closed)):
                await hold_lock(database, vanish)
            assert await is_lock_free(database)
        assert {trouble.problem for trouble in emitted.matching(DatabaseUnavailable)} == {
            "1 statements or their responses were lost on the network."
        }


async def test_a_statement_whose_response_is_lost_is_ended_on_both_sides(watched):
    async with watched() as (database, proxy, _):

        async def lose_the_answer(tx):
            proxy.drop_server_data()  # for a moment, and no connection is cut
            asyncio.get_running_loop().call_later(
                0.3, setattr, proxy.from_server, "dropping", False
            )
            await tx.connection.execute(text("SELECT 1"))

        with pytest.raises(DBAPIError):
            await hold_lock(database, lose_the_answer)
        assert await is_lock_free(database)


async def test_a_statement_that_is_being_executed_may_take_long(watched):
    async with watched() as (database, _, emitted), database.transaction() as tx:
        await tx.connection.execute(text("SELECT pg_sleep(3)"))
        assert await tx.connection.scalar(text("SELECT 1")) == 1
    assert not emitted.matching(DatabaseUnavailable)


@pytest.mark.long
async def test_executing_statements_are_checked_once_per_silence_timeout(watched):
    async with watched(patience=2) as (database, proxy, _):

        async def work():
            async with database.transaction() as tx:
                await tx.connection.execute(text("SELECT pg_sleep(5)"))

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(work())
                await sleep(0.5)
        assert 3 < proxy.connections <= 3 + 3


@pytest.mark.long
@pytest.mark.parametrize("way", ["a wire", "a proxy that buffers"])
async def test_a_large_statement_may_take_as_long_as_it_needs_to_arrive(watched, way, monkeypatch):
    large = "x" * 4_000_000
    async with watched() as (database, proxy, emitted):
        if way == "a wire":
            proxy.limit_receive_buffer()
            monkeypatch.setattr(lost_statements, "MIN_UPLOAD_RATE", 1e9)
        proxy.bytes_per_s = 1_000_000
        async with database.transaction() as tx:
            stored = await tx.connection.scalar(text("SELECT length(:large)"), {"large": large})
    assert stored == len(large)
    assert not emitted.matching(DatabaseUnavailable)


async def test_a_handler_cancelled_in_a_statement_leaves_no_pending_statement(watched):
    async with watched() as (database, _, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), database.transaction() as tx:
                await tx.connection.execute(text("SELECT pg_sleep(5)"))
        assert not database._lost_statements._pending


@pytest.mark.long
@pytest.mark.parametrize("number", [1, "none"])
async def test_a_handler_that_pauses_keeps_its_transaction(watched, number):
    async with watched() as (database, _, emitted), database.transaction() as tx:
        with suppress(DBAPIError):  # of which the server never hears
            await tx.connection.execute(text("SELECT CAST(:number AS integer)"), {"number": number})
        await sleep(4)
        assert await tx.connection.scalar(text("SELECT 2")) == 2
    assert not emitted.matching(DatabaseUnavailable)
