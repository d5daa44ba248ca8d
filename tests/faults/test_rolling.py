"""Rolling deployments of workers and participants under load fail no run."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from saga_engine.embedded.server_process import free_port
from saga_engine.settings import Settings
from saga_engine.store import dead_letter_queries, incidents
from saga_engine.store.database import Database
from tests.kit.load_environment import (
    COMMAND_QUEUES,
    LoadEnvironment,
    load_environment,
    print_table,
)
from tests.kit.programs import SupervisedProgram, is_ready, running_program, sleep, wait_until_true
from tests.kit.promises import check_promises

WORKERS, PARTICIPANTS = 3, 2
SERVICES = "examples.place_order.services"
SAGAS = "examples.place_order.sagas"


class RollingFleet:
    """Programs of one kind; each is replaced by a ready one before it gets SIGTERM."""

    def __init__(self, load: LoadEnvironment, owned, *arguments):
        self.exit_codes: list[int] = []
        self._environment, self._owned, self._arguments = load, owned, arguments
        self._running: list[SupervisedProgram] = []

    async def start_another(self):
        """Start one more, and wait until it is ready."""
        port = free_port()
        name = f"{self._arguments[0]}-{port}"
        running = running_program(
            *(*self._arguments, "--port", str(port)),
            environment=self._environment.environment,
            log=self._environment.directory / name,
        )
        self._running.append(await self._owned.enter_async_context(running))
        await wait_until_true(lambda: is_ready(port))

    async def replace_oldest(self):
        """Replace the oldest program."""
        await self.start_another()
        self.exit_codes.append(await self._running.pop(0).terminate())

    async def stop_all(self):
        """Stop all programs."""
        for running in self._running:
            self.exit_codes.append(await running.terminate())


async def roll(load: LoadEnvironment, rounds, *, runs_per_second):
    """Replace every program several times under load."""
    is_done = asyncio.Event()

    async def start_runs():
        while not is_done.is_set():
            await load.start_runs(runs_per_second)
            await sleep(1)

    async with AsyncExitStack() as owned:
        workers = RollingFleet(load, owned, "worker", SAGAS)
        services = RollingFleet(load, owned, "participant", SERVICES)
        async with asyncio.TaskGroup() as group:
            for fleet, size in ((workers, WORKERS), (services, PARTICIPANTS)):
                for _ in range(size):
                    group.create_task(fleet.start_another())
        async with asyncio.TaskGroup() as group:
            group.create_task(start_runs())
            for _ in range(rounds):
                for fleet, size in ((workers, WORKERS), (services, PARTICIPANTS)):
                    for _ in range(size):
                        await fleet.replace_oldest()
            is_done.set()
        await load.wait_for_all_ended(patience=90)
        async with asyncio.TaskGroup() as group:
            group.create_task(workers.stop_all())
            group.create_task(services.stop_all())
    codes = workers.exit_codes + services.exit_codes
    print_table(
        f"{rounds} rounds of rolling restarts",
        {
            "programs replaced": rounds * (WORKERS + PARTICIPANTS),
            **await load.ended_by_status(),
            "commands sent again": await load.extra_attempts(),
            "longest without progress, s": round(await load.longest_wait(), 1),
        },
    )
    assert set(codes) == {0}
    assert dict(await load.ended_by_status()) == {"completed": load.requested["place-order"]}
    assert await load.extra_attempts() == 0


@pytest.mark.rabbitmq
@pytest.mark.timeout(360)
async def test_rolling_restarts_under_load_fail_no_run(rabbitmq_url, migrated_url, tmp_path):
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as load:
        await roll(load, 1, runs_per_second=5)
    async with Database(migrated_url, Settings()) as database:
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
