"""A deployment rolls over workers and participants at work: nobody notices."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from saga_engine.embedded.process import free_port
from saga_engine.settings import Settings
from saga_engine.store import dead_letter_queries, incidents
from saga_engine.store.database import Database
from tests.kit.load_environment import COMMAND_QUEUES, load_environment, print_table
from tests.kit.programs import is_ready, running_program, sleep, wait_until_true
from tests.kit.promises import check_promises

WORKERS, PARTICIPANTS = 3, 2
SERVICES = "examples.place_order.services"
SAGAS = "examples.place_order.sagas"


class RollingWorkers:
    """Programs of one kind; each is replaced by one that is ready before it is told to stop."""

    def __init__(self, place, owned, *arguments):
        self.exit_codes = []
        self._environment, self._owned, self._arguments = place, owned, arguments
        self._running = []

    async def start_another(self):
        """One more, ready."""
        port = free_port()
        name = f"{self._arguments[0]}-{port}"
        running = running_program(
            *(*self._arguments, "--port", str(port)),
            environment=self._environment.environment,
            log=self._environment.directory / name,
        )
        self._running.append(await self._owned.enter_async_context(running))
        await wait_until_true(lambda: is_ready(port))

    async def replace_each(self):
        """Replace the oldest."""
        await self.start_another()
        self.exit_codes.append(await self._running.pop(0).drain())

    async def stop_all(self):
        """All of them."""
        for running in self._running:
            self.exit_codes.append(await running.drain())


async def roll(place, rounds, *, a_second):
    """Replace every program so many times under load; how many were replaced."""
    rolled = asyncio.Event()

    async def load():
        while not rolled.is_set():
            await place.start(a_second)
            await sleep(1)

    async with AsyncExitStack() as owned:
        workers = RollingWorkers(place, owned, "worker", SAGAS)
        services = RollingWorkers(place, owned, "participant", SERVICES)
        async with asyncio.TaskGroup() as group:
            for fleet, size in ((workers, WORKERS), (services, PARTICIPANTS)):
                for _ in range(size):
                    group.create_task(fleet.start_another())
        async with asyncio.TaskGroup() as group:
            group.create_task(load())
            for _ in range(rounds):
                for fleet, size in ((workers, WORKERS), (services, PARTICIPANTS)):
                    for _ in range(size):
                        await fleet.replace_each()
            rolled.set()
        await place.all_ended(patience=90)
        async with asyncio.TaskGroup() as group:
            group.create_task(workers.stop_all())
            group.create_task(services.stop_all())
    codes = workers.exit_codes + services.exit_codes
    print_table(
        f"{rounds} rounds of rolling restarts",
        {
            "programs replaced": rounds * (WORKERS + PARTICIPANTS),
            **await place.ended(),
            "commands sent again": await place.extra_attempts(),
            "longest without progress, s": round(await place.longest_wait(), 1),
        },
    )
    assert set(codes) == {0}
    assert dict(await place.ended()) == {"completed": place.asked["place-order"]}
    assert await place.extra_attempts() == 0


@pytest.mark.rabbitmq
@pytest.mark.timeout(360)
async def test_workers_and_participants_are_replaced_under_load_without_one_failed_run(
    rabbitmq_url, migrated_url, tmp_path
):
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as place:
        await roll(place, 1, a_second=5)
    async with Database(migrated_url, Settings()) as database:
        await check_promises(database)
        async with database.transaction() as tx:
            assert not await dead_letter_queries.read_page(tx, limit=10)
            assert not await incidents.read_page(tx, limit=10)


@pytest.mark.rabbitmq
async def test_a_participant_with_a_stuck_handler_ends_and_its_command_goes_to_another(
    rabbitmq_url, migrated_url, tmp_path
):
    settings = {"SAGA_ENGINE_SHUTDOWN_TIMEOUT": "6"}
    async with load_environment(migrated_url, rabbitmq_url, tmp_path, **settings) as place:
        await place.start_worker("tests.load.sagas")
        stuck = await place.start_participant(name="stuck", SLOW_SECONDS="600")
        await place.start_runs(1, saga="reserve-only")

        async def is_taken():
            left = "SELECT 1 FROM saga_engine.run WHERE NOT EXISTS (SELECT FROM saga_engine.outbox)"
            depths = await place.queue_depths(*COMMAND_QUEUES)
            return await place.query(left) and not any(depths.values())

        await wait_until_true(is_taken)
        async with asyncio.timeout(30):
            await stuck.drain()
        assert (await place.queue_depths(*COMMAND_QUEUES))[COMMAND_QUEUES[0]] == 1
        await place.start_participant(name="another")
        await place.wait_for_all_ended()
        assert dict(await place.ended_by_status("reserve-only")) == {"completed": 1}
        assert await place.extra_attempts() == 0
