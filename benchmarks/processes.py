"""Private servers, the engine's processes, and the processor time of all of them."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from saga_engine.embedded.postgres import PostgresServer
from tests.kit.rabbitmq import RabbitMQServer

CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MIGRATE = ("-m", "saga_engine", "migrate")


@dataclass(frozen=True, slots=True)
class ServerUrls:
    """Where the servers are, and their process ids."""

    broker_url: str
    database_url: str
    pids: tuple[int, ...]

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process of the engine needs to find them."""
        return {
            "SAGA_ENGINE_DATABASE_URL": self.database_url,
            "SAGA_ENGINE_BROKER_URL": self.broker_url,
            "SAGA_ENGINE_LOG_LEVEL": "warning",
        }


@asynccontextmanager
async def start_servers() -> AsyncIterator[ServerUrls]:
    """A private RabbitMQ with quorum queues and a private PostgreSQL with fsync."""
    async with RabbitMQServer() as rabbit, PostgresServer() as postgres:
        yield ServerUrls(rabbit.url, postgres.url, (rabbit.pid, postgres.pid))


@asynccontextmanager
async def run_engine(
    urls: ServerUrls, *, workers: int, barrier: bool
) -> AsyncIterator[Mapping[str, Sequence[int]]]:
    """Workers and one process of participants; gives the process ids of everything, by role."""
    environment = {
        **urls.environment,
        "PLACE_ORDER_DATABASE_URL": urls.database_url if barrier else "",
    }
    await (await start_python(*MIGRATE, environment=environment)).wait()
    command = ("-m", "saga_engine")
    async with AsyncExitStack() as stack:
        rabbit, postgres = urls.pids
        pids = {"rabbitmq": [rabbit], "postgresql": [postgres], "worker": [], "participants": []}
        for _ in range(workers):
            worker = (*command, "worker", "examples.place_order.sagas", "--port", "0")
            started = run_process(*worker, environment=environment)
            pids["worker"].append(await stack.enter_async_context(started))
        services = (*command, "participant", "benchmarks.services", "--port", "0")
        started = run_process(*services, environment=environment)
        pids["participants"].append(await stack.enter_async_context(started))
        yield pids


@asynccontextmanager
async def run_participants(urls: ServerUrls, *, barrier: bool) -> AsyncIterator[int]:
    """The tables, and one process of participants; its pid."""
    environment = {
        **urls.environment,
        "PLACE_ORDER_DATABASE_URL": urls.database_url if barrier else "",
    }
    await (await start_python(*MIGRATE, environment=environment)).wait()
    services = ("-m", "saga_engine", "participant", "benchmarks.services", "--port", "0")
    async with run_process(*services, environment=environment) as pid:
        yield pid


@asynccontextmanager
async def run_process(*arguments: str, environment: Mapping[str, str]) -> AsyncIterator[int]:
    """A Python process for the time of the block; its pid."""
    process = await start_python(*arguments, environment=environment)
    try:
        yield process.pid
    finally:
        await terminate(process)


async def terminate(process: asyncio.subprocess.Process) -> None:
    """End a process, in order."""
    if process.returncode is None:
        process.terminate()
    await process.wait()


async def start_python(
    *arguments: str, environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Start this Python with *arguments*, from the directory that holds `examples`."""
    root = Path(__file__).parent.parent
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, **environment},
        cwd=root,
        stdout=asyncio.subprocess.DEVNULL,  # ours is for the figures
    )


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process and all that it started (proc(5), stat and task)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # Its own, then those of its children that have ended.
    return sum(map(int, fields[11:15])) / CLOCK_TICKS_PER_SECOND + sum(map(cpu_seconds, children))
