"""The password of the engine's role is changed while it works."""

import asyncio

import asyncpg

from saga_engine.store.migrate import upgrade
from saga_engine.telemetry.events import DatabaseUnavailable
from saga_engine.vocabulary import Status
from tests.faults.environment import asyncpg_url
from tests.kit.engine import engine_harness, no_reply, succeed
from tests.kit.servers import running_postgres

OLD, NEW = "canary-old-password", "canary-new-password"
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'"


async def test_a_changed_database_password_is_reported_until_it_is_right_again(
    development_broker,
):
    async with running_postgres(use_tcp=True) as server:
        url = await server.create_database("rotated")
        administrator = await asyncpg.connect(asyncpg_url(url))
        await administrator.execute(f"CREATE ROLE rotated LOGIN PASSWORD '{OLD}'")
        await administrator.execute("ALTER DATABASE rotated OWNER TO rotated")
        ours = f"postgresql+asyncpg://rotated:{OLD}@{url.rpartition('@')[2]}"
        await upgrade(ours)
        async with engine_harness(development_broker.url, url) as engine:
            worker = await engine.start_worker(database_url=ours)
            shop, asker = await engine.start_participant(), await engine.connect_client()
            shop.reply_makers["parcel.send"] = no_reply
            run_id = await asker.start()
            [command] = await shop.wait_for_commands("parcel.send")
            await administrator.execute(f"ALTER ROLE rotated PASSWORD '{NEW}'")
            assert (await asker.call("status", run_id=run_id)).outcome == "existing"
            await administrator.execute(END_SESSIONS)
            await shop.publish(*succeed(command))
            async with asyncio.timeout(20):
                while not (said := refusals(worker)):
                    await worker.events.wait_for(DatabaseUnavailable, len(problems(worker)) + 1)
            assert not any(OLD in each or NEW in each for each in said)
            assert "refuses" in str((await worker.worker.readiness())["database"])
            await administrator.execute(f"ALTER ROLE rotated PASSWORD '{OLD}'")
            assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
        await administrator.close()


def problems(worker):
    return [each.problem for each in worker.events.matching(DatabaseUnavailable)]


def refusals(worker):
    return [each for each in problems(worker) if "refuses the user or the password" in each]
