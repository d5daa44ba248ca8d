"""Processes with a blocked event loop, without file descriptors or with little CPU time."""

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

MAX_FILES = 64  # File descriptors; systemd's default is 1024.
BUSY_PROCESSES = 2 * (os.cpu_count() or 1)
EFFECTS = "SELECT job_id FROM recorded_effect ORDER BY job_id"
CONNECTION_LOST = re.compile(r'"broker_connection.changed".*"problem":"The connection was lost')


class BlockedServices:
    """A worker, a participant and a client of `blocked_services`."""

    def __init__(self, worker, participant, client, database_url):
        self.programs = {"worker": worker, "participant": participant}
        self.client = client
        self._url = asyncpg_url(database_url)

    async def start(self, job_id, blocked_in=""):
        job = {"job_id": job_id, "blocked_in": blocked_in}
        handle = await self.client.start(job_saga, job, key=job_id)
        return handle.run_id

    async def wait_for_completed(self, run_id, *, patience=30):
        result = await self.client.result(run_id, timeout=patience)
        return result.status is Status.COMPLETED

    async def recorded_effects(self):
        """The effects of the participant, from its own database."""
        connection = await asyncpg.connect(self._url)
        try:
            return [row["job_id"] for row in await connection.fetch(EFFECTS)]
        finally:
            await connection.close()


@asynccontextmanager
async def blocked_services(broker_url, database_url, directory, *, through=None):
    """Run the processes, each ready; with `through`, the worker uses that URL of the broker."""
    connection = await asyncpg.connect(asyncpg_url(database_url))
    await connection.execute("CREATE TABLE recorded_effect (job_id text)")
    await connection.close()
    common = {
        "SAGA_ENGINE_BROKER_URL": broker_url,
        "SAGA_ENGINE_BROKER_HEARTBEAT": "5",
        "SAGA_ENGINE_LOG_FORMAT": "json",
        "SAGA_ENGINE_CLIENT_TIMEOUT": "30",
    }
    specific = {
        "worker": {
            "SAGA_ENGINE_DATABASE_URL": database_url,
            "SAGA_ENGINE_BROKER_URL": through or broker_url,
            # High enough that a blocking mapping function is not interrupted.
            "SAGA_ENGINE_MAPPING_TIMEOUT": str(BLOCK_SECONDS + 4),
            "SAGA_ENGINE_MAPPING_HARD_TIMEOUT": str(BLOCK_SECONDS + 9),
        },
        "participant": {DATABASE: database_url},
    }
    async with AsyncExitStack() as owned:
        programs = []
        for name, own in specific.items():
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


def open_file_count(running):
    """The number of file descriptors of a process."""
    return len(list(Path(f"/proc/{running.pid}/fd").iterdir()))


@pytest.mark.parametrize("process", ["worker", "participant"])
async def test_a_process_with_a_blocked_loop_reconnects_and_repeats_no_effect(
    rabbitmq_url, migrated_url, tmp_path, process
):
    async with blocked_services(rabbitmq_url, migrated_url, tmp_path) as services:
        blocking = await services.start("blocking", blocked_in=process)
        async with asyncio.timeout(BLOCK_SECONDS + 15):
            assert await services.wait_for_completed(blocking, patience=BLOCK_SECONDS + 15)
        assert await services.wait_for_completed(await services.start("after"))
        assert await services.recorded_effects() == ["after", "blocking"]
        assert CONNECTION_LOST.search(services.programs[process].log.read_text())


async def test_a_worker_without_file_descriptors_reports_it_and_recovers(
    rabbitmq_url, migrated_url, tmp_path
):
    async with (
        running_proxy(rabbitmq_url) as proxy,
        blocked_services(rabbitmq_url, migrated_url, tmp_path, through=proxy.url) as services,
    ):
        worker = services.programs["worker"]
        before = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        proxy.reset()

        async def is_reported():
            worker.assert_running()
            return "Too many open files" in worker.log.read_text()

        async with asyncio.TaskGroup() as group:
            starting = group.create_task(services.start("short of files"))
            await wait_until_true(is_reported, patience=10)
            assert not starting.done()
            resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, before)
        assert await services.wait_for_completed(starting.result())
        assert await services.recorded_effects() == ["short of files"]


async def test_a_worker_needs_few_file_descriptors(rabbitmq_url, migrated_url, tmp_path):
    async with blocked_services(rabbitmq_url, migrated_url, tmp_path) as services:
        worker = services.programs["worker"]
        await services.wait_for_completed(await services.start("first"))
        assert open_file_count(worker) < MAX_FILES
        _, hard_limit = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (MAX_FILES, hard_limit))
        run_ids = [await services.start(f"job {number}") for number in range(50)]
        for run_id in run_ids:
            assert await services.wait_for_completed(run_id)


async def test_a_worker_with_little_cpu_time_still_finishes(rabbitmq_url, migrated_url, tmp_path):
    async with (
        blocked_services(rabbitmq_url, migrated_url, tmp_path) as services,
        AsyncExitStack() as owned,
    ):
        os.setpriority(os.PRIO_PROCESS, services.programs["worker"].pid, 10)
        for _ in range(BUSY_PROCESSES):
            loop = await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
            owned.push_async_callback(loop.wait)
            owned.callback(loop.kill)
        job_ids = [f"job {number}" for number in range(10)]
        async with asyncio.TaskGroup() as group:
            starts = [group.create_task(services.start(each)) for each in job_ids]
        for each in starts:
            assert await services.wait_for_completed(each.result())
        assert await services.recorded_effects() == job_ids
