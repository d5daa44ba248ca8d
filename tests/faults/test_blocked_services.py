"""What a process has to do without: its loop, file descriptors, time of the processor."""

import asyncio
import os
import re
import resource
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from saga_engine import Client
from saga_engine.settings import Settings
from saga_engine.vocabulary import Status
from tests.faults.blocked_services import BLOCK_SECONDS, DATABASE, job_saga
from tests.faults.environment import asyncpg_url
from tests.kit.programs import running_program, wait_until_true
from tests.kit.proxy import running_proxy

pytestmark = pytest.mark.rabbitmq

FEW = 64  # File descriptors; systemd's default is 1024.
BUSY = 2 * (os.cpu_count() or 1)  # Processes that want all of the processor.
EFFECTS = "SELECT errand FROM noted ORDER BY errand"
SAID_OF_THE_CONNECTION = re.compile(
    r'"broker_connection.changed".*"problem":"The connection was lost'
)


class BlockedServices:
    """A worker and a participant of `blocked`, and a client of theirs."""

    def __init__(self, worker, participant, client, database_url):
        self.programs = {"worker": worker, "participant": participant}
        self.client = client
        self._url = asyncpg_url(database_url)

    async def start(self, errand, blocks=""):
        handle = await self.client.start(job_saga, {"errand": errand, "blocks": blocks}, key=errand)
        return handle.run_id

    async def wait_for_completed(self, run_id, *, patience=30):
        ending = await self.client.result(run_id, timeout=patience)
        return ending.status is Status.COMPLETED

    async def recorded_effects(self):
        """What the participant did, from its own database."""
        connection = await asyncpg.connect(self._url)
        try:
            return [row["errand"] for row in await connection.fetch(EFFECTS)]
        finally:
            await connection.close()


@asynccontextmanager
async def blocked_services(broker_url, database_url, directory, *, through=None):
    """Their processes, each ready; with `through`, the worker reaches the broker by that URL."""
    connection = await asyncpg.connect(asyncpg_url(database_url))
    await connection.execute("CREATE TABLE noted (errand text)")
    await connection.close()
    common = {
        "SAGA_ENGINE_BROKER_URL": broker_url,
        "SAGA_ENGINE_BROKER_HEARTBEAT": "5",
        "SAGA_ENGINE_LOG_FORMAT": "json",
        "SAGA_ENGINE_CLIENT_TIMEOUT": "30",
    }
    theirs = {
        "worker": {
            "SAGA_ENGINE_DATABASE_URL": database_url,
            "SAGA_ENGINE_BROKER_URL": through or broker_url,
            # A mapping function that blocks is let through, so that the loop stands still.
            "SAGA_ENGINE_MAPPING_TIMEOUT": str(BLOCK_SECONDS + 4),
            "SAGA_ENGINE_MAPPING_HARD_TIMEOUT": str(BLOCK_SECONDS + 9),
        },
        "participant": {DATABASE: database_url},
    }
    async with AsyncExitStack() as owned:
        programs = []
        for name, own in theirs.items():
            running = running_program(
                *(name, "tests.faults.blocked_services", "--port", "0"),
                environment=common | own,
                log=directory / name,
            )
            programs.append(await owned.enter_async_context(running))
            await wait_until_true(programs[-1].is_ready)
        settings = Settings(broker_url=broker_url, client_timeout=30)
        client = await owned.enter_async_context(Client(settings=settings))
        worker, participant = programs
        yield BlockedServices(worker, participant, client, database_url)


def files_of(running):
    """How many file descriptors it has."""
    return len(list(Path(f"/proc/{running.pid}/fd").iterdir()))


@pytest.mark.parametrize("who", ["worker", "participant"])
async def test_a_process_whose_loop_is_blocked_reconnects_and_does_nothing_twice(
    rabbitmq_url, migrated_url, tmp_path, who
):
    async with blocked_services(rabbitmq_url, migrated_url, tmp_path) as place:
        blocking = await place.start("blocking", blocks=who)
        async with asyncio.timeout(BLOCK_SECONDS + 15):
            assert await place.wait_for_completed(blocking, patience=BLOCK_SECONDS + 15)
        assert await place.wait_for_completed(await place.start("after"))
        assert await place.recorded_effects() == ["after", "blocking"]
        assert SAID_OF_THE_CONNECTION.search(place.programs[who].log.read_text())


async def test_a_worker_without_a_free_file_descriptor_says_so_and_goes_on_when_it_has_one(
    rabbitmq_url, migrated_url, tmp_path
):
    async with (
        running_proxy(rabbitmq_url) as proxy,
        blocked_services(rabbitmq_url, migrated_url, tmp_path, through=proxy.url) as place,
    ):
        worker = place.programs["worker"]
        before = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        proxy.reset()

        async def said():
            worker.must_run()
            return "Too many open files" in worker.log.read_text()

        async with asyncio.TaskGroup() as group:
            starting = group.create_task(place.start("short of files"))
            await wait_until_true(said, patience=10)
            assert not starting.done()
            resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, before)
        assert await place.wait_for_completed(starting.result())
        assert await place.recorded_effects() == ["short of files"]


async def test_a_worker_works_within_few_file_descriptors(rabbitmq_url, migrated_url, tmp_path):
    async with blocked_services(rabbitmq_url, migrated_url, tmp_path) as place:
        worker = place.programs["worker"]
        await place.wait_for_completed(await place.start("first"))
        assert files_of(worker) < FEW
        _, most = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (FEW, most))
        asked = [await place.start(f"errand {number}") for number in range(50)]
        for run_id in asked:
            assert await place.wait_for_completed(run_id)


async def test_a_worker_that_gets_little_of_the_processor_still_finishes(
    rabbitmq_url, migrated_url, tmp_path
):
    async with (
        blocked_services(rabbitmq_url, migrated_url, tmp_path) as place,
        AsyncExitStack() as owned,
    ):
        os.setpriority(os.PRIO_PROCESS, place.programs["worker"].pid, 10)
        for _ in range(BUSY):
            loop = await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
            owned.push_async_callback(loop.wait)
            owned.callback(loop.kill)
        errands = [f"errand {number}" for number in range(10)]
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(place.start(each)) for each in errands]
        for each in asked:
            assert await place.wait_for_completed(each.result())
        assert await place.recorded_effects() == errands
