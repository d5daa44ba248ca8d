"""The engine of a participant's URL: its sessions end when their client is cut off."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.embedded.server_process import free_port
from saga_engine.participant import barrier
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.vocabulary import BarrierResult
from tests.kit.payments_participant import make_command
from tests.kit.proxy import TcpProxy, running_proxy
from tests.kit.servers import running_postgres


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
                return await barrier.claim_command(
                    tx.barrier, asked, compensates_local_action=False
                )
        except barrier.CommandInProgress:
            pass


async def test_a_client_that_is_cut_off_does_not_lock_its_command_forever():
    charge = make_command()

    async def be_cut_off(lost: ParticipantDatabase, proxy: TcpProxy, other: ParticipantDatabase):
        async with lost.transaction() as tx:
            assert (
                await barrier.claim_command(tx.barrier, charge, compensates_local_action=False)
                is None
            )
            proxy.drop_open_connections()
            async with asyncio.timeout(20):
                assert await entered(other, charge) is None

    async with running_postgres(use_tcp=True) as server, running_proxy(server.url) as proxy:
        lost = ParticipantDatabase(proxy.url, Settings(participant_handler_timeout=1))
        other = ParticipantDatabase(server.url, Settings())
        await lost.prepare(create_barrier=True)
        closed = asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError
        with pytest.raises((TimeoutError, *closed)):
            await be_cut_off(lost, proxy, other)
        async with asyncio.timeout(20), lost.transaction() as tx:
            answer = await barrier.claim_command(tx.barrier, charge, compensates_local_action=False)
            assert answer is not None
            assert answer.barrier_result is BarrierResult.REPEATED
        await lost.close()
        await other.close()
