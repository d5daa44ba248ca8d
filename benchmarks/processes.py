"""Private servers, processes of the engine, and the processor time of both."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from saga_engine.embedded.postgres import PostgresServer
from tests.kit.rabbitmq import RabbitMQServer

CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MIGRATE = ("-m", "saga_engine", "migrate")
WORKER = ("-m", "saga_engine", "worker", "examples.place_order.sagas", "--port", "0")
PARTICIPANT = ("-m", "saga_engine", "participant", "benchmarks.services", "--port", "0")


@dataclass(frozen=True, slots=True)
class ServerUrls:
    """The URLs of the servers, and their process ids."""

    broker_url: str
    database_url: str
    pids: tuple[int, ...]

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables for a process of the engine."""
        return {
            "SAGA_ENGINE_DATABASE_URL": self.database_url,
            "SAGA_ENGINE_BROKER_URL": self.broker_url,
            "SAGA_ENGINE_LOG_LEVEL": "warning",
        }


@asynccontextmanager
async def start_servers() -> AsyncIterator[ServerUrls]:
    """Start a private RabbitMQ with quorum queues and a private PostgreSQL with fsync."""
    async with RabbitMQServer() as rabbit, PostgresServer() as postgres:
        yield ServerUrls(rabbit.url, postgres.url, (rabbit.pid, postgres.pid))


@asynccontextmanager
async def run_engine(
    urls: ServerUrls,
    *,
    workers: int = 1,
    barrier: bool = False,
    worker_environment: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Mapping[str, Sequence[int]]]:
    """Run workers and one participant process; yield all process ids, by role."""
    environment = {
        **urls.environment,
        "PLACE_ORDER_DATABASE_URL": urls.database_url if barrier else "",
    }
    await migrate(environment)
    async with AsyncExitStack() as stack:
        rabbit, postgres = urls.pids
        pids = {"rabbitmq": [rabbit], "postgresql": [postgres], "worker": [], "participants": []}
        for _ in range(workers):
            started = run_process(*WORKER, environment={**environment, **worker_environment})
            pids["worker"].append(await stack.enter_async_context(started))
        started = run_process(*PARTICIPANT, environment=environment)
        pids["participants"].append(await stack.enter_async_context(started))
        yield pids


async def migrate(environment: Mapping[str, str]) -> None:
    """Create the tables of the engine."""
    process = await start_python(*MIGRATE, environment=environment)
    if await process.wait():
        raise SystemExit("`saga-engine migrate` failed.")


@asynccontextmanager
async def run_participants(urls: ServerUrls, *, barrier: bool) -> AsyncIterator[int]:
    """Migrate, and run one participant process; yield its process id."""
    environment = {
        **urls.environment,
        "PLACE_ORDER_DATABASE_URL": urls.database_url if barrier else "",
    }
    await migrate(environment)
    async with run_process(*PARTICIPANT, environment=environment) as pid:
        yield pid


@asynccontextmanager
async def run_process(*arguments: str, environment: Mapping[str, str]) -> AsyncIterator[int]:
    """Run a Python process until the block ends; yield its process id."""
    process = await start_python(*arguments, environment=environment)
    try:
        yield process.pid
    finally:
        await terminate(process)


async def terminate(process: asyncio.subprocess.Process) -> None:
    """Stop a process with SIGTERM and wait for it."""
    if process.returncode is None:
        process.terminate()
    await process.wait()


async def start_python(
    *arguments: str, environment: Mapping[str, str], quiet: bool = False
) -> asyncio.subprocess.Process:
    """
    Start this Python with *arguments*, in the directory that contains `examples`.

    Its stdout is dropped, and if it is *quiet* its stderr too.
    """
    root = Path(__file__).parent.parent
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, **environment},
        cwd=root,
        stdout=asyncio.subprocess.DEVNULL,  # our stdout is for the figures
        stderr=asyncio.subprocess.DEVNULL if quiet else None,
    )


def open_resources(pid: int) -> Mapping[str, int]:
    """Return the threads, sockets and resident megabytes of a process (proc(5))."""
    process = Path(f"/proc/{pid}")
    pages = int((process / "statm").read_text().split()[1])
    return {
        "threads": len(list((process / "task").iterdir())),
        "sockets": sum(
            str(each.readlink()).startswith("socket:") for each in (process / "fd").iterdir()
        ),
        "resident_mb": pages * os.sysconf("SC_PAGE_SIZE") // 2**20,
    }


def cpu_seconds(pid: int) -> float:
    """Return the user and system seconds of a process and its children (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # Its own time and that of its exited children, then that of its running children.
    return sum(map(int, fields[11:15])) / CLOCK_TICKS_PER_SECOND + sum(map(cpu_seconds, children))
