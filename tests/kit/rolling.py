"""Rolling restarts of workers and participants under load."""

import asyncio
from contextlib import AsyncExitStack

from saga_engine.embedded.server_process import free_port
from tests.kit.figures import print_table
from tests.kit.load_environment import LoadEnvironment
from tests.kit.programs import SupervisedProgram, is_ready, running_program, sleep, wait_until_true

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
