"""Rolling deployments of workers and participants under load fail no run."""

import asyncio

import pytest

from saga_engine.store import dead_letter_queries, incidents
from saga_engine.store.database import Database
from tests.kit.engine import SLOW_TEST_SETTINGS
from tests.kit.load_environment import (
    COMMAND_QUEUES,
    load_environment,
)
from tests.kit.programs import wait_until_true
from tests.kit.promises import check_promises
from tests.kit.rolling import roll


@pytest.mark.rabbitmq
@pytest.mark.timeout(360)
async def test_rolling_restarts_under_load_fail_no_run(rabbitmq_url, migrated_url, tmp_path):
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as load:
        await roll(load, 1, runs_per_second=5)
    async with Database(migrated_url, SLOW_TEST_SETTINGS) as database:
        await check_promises(database)
        async with database.transaction() as tx:
            assert not await dead_letter_queries.read_page(tx, limit=10)
            assert not await incidents.read_page(tx, limit=10)


@pytest.mark.rabbitmq
async def test_the_command_of_a_hanging_handler_goes_to_another_participant(
    rabbitmq_url, migrated_url, tmp_path
):
    settings = {"SAGA_ENGINE_SHUTDOWN_TIMEOUT": "6"}
    async with load_environment(migrated_url, rabbitmq_url, tmp_path, **settings) as load:
        await load.start_worker("tests.load.sagas")
        hanging = await load.start_participant(name="hanging", SLOW_SECONDS="600")
        await load.start_runs(1, saga="reserve-only")

        async def is_delivered():
            published = (
                "SELECT 1 FROM saga_engine.run WHERE NOT EXISTS (SELECT FROM saga_engine.outbox)"
            )
            depths = await load.queue_depths(*COMMAND_QUEUES)
            return await load.query(published) and not any(depths.values())

        await wait_until_true(is_delivered)
        async with asyncio.timeout(30):
            await hanging.terminate()
        assert (await load.queue_depths(*COMMAND_QUEUES))[COMMAND_QUEUES[0]] == 1
        await load.start_participant(name="another")
        await load.wait_for_all_ended()
        assert dict(await load.ended_by_status("reserve-only")) == {"completed": 1}
        assert await load.extra_attempts() == 0
