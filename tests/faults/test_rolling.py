"""A deployment rolls over workers and participants at work: nobody notices."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from saga_engine.embedded.process import free_port
from saga_engine.settings import Settings
from saga_engine.store import dead_letters, incidents
from saga_engine.store.database import Database
from tests.faults.processes import eventually, is_ready, lasting, program
from tests.load.stage import COMMANDS, stage, table
from tests.worker.promises import check_promises

WORKERS, PARTICIPANTS = 3, 2
SERVICES = "examples.place_order.services"
SAGAS = "examples.place_order.sagas"


class Fleet:
    """Programs of one kind; each is replaced by one that is ready before it is told to stop."""

    def __init__(self, place, owned, *arguments):
        self.codes = []
        self._place, self._owned, self._arguments = place, owned, arguments
        self._running = []

    async def grow(self):
        """One more, ready."""
        port = free_port()
        name = f"{self._arguments[0]}-{port}"
        running = program(
            *(*self._arguments, "--port", str(port)),
            environment=self._place.environment,
            log=self._place.directory / name,
        )
        self._running.append(await self._owned.enter_async_context(running))
        await eventually(lambda: is_ready(port))

    async def roll(self):
        """Replace the oldest."""
        await self.grow()
        self.codes.append(await self._running.pop(0).drain())

    async def drain(self):
        """All of them."""
        for running in self._running:
            self.codes.append(await running.drain())


async def roll(place, rounds, *, a_second):
    """Replace every program so many times under load; how many were replaced."""
    rolled = asyncio.Event()

    async def load():
        while not rolled.is_set():
            await place.start(a_second)
            await lasting(1)

    async with AsyncExitStack() as owned:
        workers = Fleet(place, owned, "worker", SAGAS)
        services = Fleet(place, owned, "participant", SERVICES)
        async with asyncio.TaskGroup() as group:
            for fleet, size in ((workers, WORKERS), (services, PARTICIPANTS)):
                for _ in range(size):
                    group.create_task(fleet.grow())
        async with asyncio.TaskGroup() as group:
            group.create_task(load())
            for _ in range(rounds):
                for fleet, size in ((workers, WORKERS), (services, PARTICIPANTS)):
                    for _ in range(size):
                        await fleet.roll()
            rolled.set()
        await place.all_ended(patience=90)
        async with asyncio.TaskGroup() as group:
            group.create_task(workers.drain())
            group.create_task(services.drain())
    codes = workers.codes + services.codes
    table(
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
    async with stage(migrated_url, rabbitmq_url, tmp_path) as place:
        await roll(place, 1, a_second=5)
    async with Database(migrated_url, Settings()) as database:
        await check_promises(database)
        async with database.transaction() as tx:
            assert not await dead_letters.listing(tx, limit=10)
            assert not await incidents.listing(tx, limit=10)


@pytest.mark.rabbitmq
async def test_a_participant_with_a_stuck_handler_ends_and_its_command_goes_to_another(
    rabbitmq_url, migrated_url, tmp_path
):
    settings = {"SAGA_ENGINE_DRAIN": "6"}
    async with stage(migrated_url, rabbitmq_url, tmp_path, **settings) as place:
        await place.worker("tests.load.sagas")
        stuck = await place.participant(name="stuck", SLOW_SECONDS="600")
        await place.start(1, saga="reserve-only")

        async def is_taken():
            left = "SELECT 1 FROM saga_engine.run WHERE NOT EXISTS (SELECT FROM saga_engine.outbox)"
            depths = await place.depths(*COMMANDS)
            return await place.ask(left) and not any(depths.values())

        await eventually(is_taken)
        async with asyncio.timeout(30):
            await stuck.drain()
        assert (await place.depths(*COMMANDS))[COMMANDS[0]] == 1
        await place.participant(name="another")
        await place.all_ended()
        assert dict(await place.ended("reserve-only")) == {"completed": 1}
        assert await place.extra_attempts() == 0
