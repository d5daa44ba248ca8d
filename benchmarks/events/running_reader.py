"""What reads events as a process: a projector with one projection, a feed, or a consumer."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from benchmarks.events.event_database import EventDatabase
from benchmarks.processes import cpu_seconds, open_resources, run_process

IDLE_SECONDS = 10.0
_POLL_SECONDS = 0.02
_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """
    A process that reads events.

    Args:
        name: of its only projection, feed or consumer.
        command: of saga-engine, which runs it.
        progress: a statement that returns how far it is, by its name as $1; NULL or no row before
            it has a lease.
        environment: environment variables for it, beside those of the database.
        servers: the process ids of the servers whose processor time counts, by their names.
    """

    name: str
    command: Sequence[str]
    progress: str
    environment: Mapping[str, str] = field(default_factory=dict)
    servers: Mapping[str, int] = field(default_factory=dict)


class RunningReader:
    """
    A reader while its process runs.

    Args:
        reader: which one.
        pids: the process ids whose processor time counts, by their names.
        connection: to its database.
    """

    def __init__(
        self, reader: Reader, pids: Mapping[str, int], connection: asyncpg.Connection
    ) -> None:
        self._reader = reader
        self._pids = pids
        self._connection = connection

    async def wait_for(self, position: int) -> int:
        """Wait until it has come to *position*, and return how far it is."""
        deadline = time.monotonic() + _TIMEOUT
        while (reached := await self.position()) < position:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._reader.name} is at {reached} and not at {position}")
            await asyncio.sleep(_POLL_SECONDS)
        return reached

    async def position(self) -> int:
        """How far it is; -1 before it runs."""
        position: int | None = await self._connection.fetchval(
            self._reader.progress, self._reader.name
        )
        return -1 if position is None else position

    def open_resources(self) -> Mapping[str, int]:
        """The threads, sockets and resident megabytes of the process."""
        return open_resources(self._pids[self._reader.command[0]])

    def cpu_seconds(self) -> Mapping[str, float]:
        """The processor time of the process and of the servers until now, in seconds."""
        return {name: cpu_seconds(pid) for name, pid in self._pids.items()}


@asynccontextmanager
async def run_reader(database: EventDatabase, reader: Reader) -> AsyncIterator[RunningReader]:
    """Run the process of a reader; the block begins with its lease."""
    command = ("-m", "saga_engine", *reader.command, "--port", "0")
    environment = {**database.environment, **reader.environment}
    connection = await database.connect()
    try:
        async with run_process(*command, environment=environment) as pid:
            pids = {reader.command[0]: pid, "postgresql": database.pid, **reader.servers}
            running = RunningReader(reader, pids, connection)
            await running.wait_for(0)
            yield running
    finally:
        await connection.close()


async def measure_speed(running: RunningReader, first: int, last: int) -> Mapping[str, object]:
    """
    Measure how fast a reader comes from one position to another.

    The time begins when it is seen at or after the first one: what it opens and makes when it
    starts does not count.
    """
    reached = await running.wait_for(first)
    started_at, before = time.perf_counter(), running.cpu_seconds()
    await running.wait_for(last)
    seconds, after = time.perf_counter() - started_at, running.cpu_seconds()
    events = last - reached
    return {
        "events": events,
        "events_per_s": round(events / seconds),
        "cpu_us_per_event": cpu_per_event(before, after, events),
    }


async def measure_idle(running: RunningReader) -> Mapping[str, object]:
    """Measure what a reader that has read everything takes: of a core, threads and so on."""
    started_at, before = time.perf_counter(), running.cpu_seconds()
    await asyncio.sleep(IDLE_SECONDS)
    seconds, after = time.perf_counter() - started_at, running.cpu_seconds()
    share = {name: round((after[name] - before[name]) / seconds * 100, 1) for name in before}
    return {**running.open_resources(), "cpu_percent": share}


def cpu_per_event(
    before: Mapping[str, float], after: Mapping[str, float], events: int
) -> Mapping[str, float]:
    """Return the processor time of an event in microseconds, by process."""
    return {name: round((after[name] - before[name]) * 1e6 / events, 1) for name in before}
