"""
Compare the processor time per run of two checkouts, relative to that of RabbitMQ in the same run.

    python -m benchmarks.compare --before CHECKOUT --after CHECKOUT [--pairs 12] [--case success]
    python -m benchmarks.compare --case read-models --case feed --case kafka-feed [--pairs 12]

Each checkout runs its own code with its own `.venv`; this checkout starts the runs and receives
their results. Both use the same servers, with an empty virtual host and an empty database for each
measurement. A pair measures one after the other, and the next pair in the reverse order, so that
other load on the machine affects both alike. Each case prints two JSON lines with milliseconds per
run by process, and one with the median of the ratios after/before and an interval that contains it
with a probability of at least 95 % (from order statistics, without assuming a distribution; below
six pairs the interval is the whole range).

The cases `read-models`, `feed`, `stream-feed`, `kafka-feed` and `webhook-feed` compare one
checkout, `--after` (by default this one), with itself: before without readers of events, after with
the engine's read models (`worker --events`), or with a projector that publishes one feed of the
journals of all runs; the webhook gets only their ends. Their ratio is that of worker and
PostgreSQL, relative to RabbitMQ. A feed publishes to a server of its own, so that its messages do
not make the runs look cheaper; its process and that server are printed, and `ratio_with_readers`
counts the feed's process as well.
"""

import argparse
import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.costs import engine_cost, engine_cost_with_readers, ratio_fields, relative_cost
from benchmarks.event_readers import (
    SETTLE_SECONDS,
    EventReaders,
    bound_queue,
    wait_until_caught_up,
)
from benchmarks.load_generator import ROLLBACK, SUCCESS, LoadGenerator, Workload
from benchmarks.processes import ServerUrls, cpu_seconds, terminate
from benchmarks.runs.statements import QUIET_DUTIES
from benchmarks.servers import SharedServers
from benchmarks.sink_servers import SinkServer, start_sink_server
from benchmarks.wire_counter import TransactionCounts, WireCounts, counted
from saga_engine.embedded.postgres import PostgresServer
from saga_engine.events.feeds.feed import Sink
from tests.kit.rabbitmq import RabbitMQServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case: the workload, with or without the barrier, and how many runs are in flight."""

    name: str
    workload: Workload = SUCCESS
    barrier: bool = False
    runs_in_flight: int
    readers: EventReaders | None = None


CASES = (
    Case(name="success", runs_in_flight=200),
    Case(name="success-barrier", barrier=True, runs_in_flight=200),
    Case(name="rollback", workload=ROLLBACK, runs_in_flight=200),
    Case(name="rollback-barrier", workload=ROLLBACK, barrier=True, runs_in_flight=200),
    Case(name="one-at-a-time", runs_in_flight=1),
    *(Case(name=each.value, runs_in_flight=200, readers=each) for each in EventReaders),
)
SIDE_NAMES = ("before", "after")
MAX_ATTEMPTS = 3
WARMUP_RUNS = 100
"""Runs before the measurement."""


class ComparedServers(SharedServers):
    """The servers of all measurements of a case, and a server for its feed."""

    def __init__(
        self, rabbit: RabbitMQServer, postgres: PostgresServer, feed_server: SinkServer | None
    ) -> None:
        super().__init__(rabbit, postgres)
        self.feed_server = feed_server


class Checkout:
    """One checkout; the processes it starts run its code."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        venv_python = self.path / ".venv/bin/python"
        self.python = str(venv_python) if venv_python.exists() else sys.executable

    async def migrate(self, environment: Mapping[str, str]) -> None:
        """Create its tables."""
        process = await self._start(("-m", "saga_engine", "migrate"), environment)
        if await process.wait():
            raise SystemExit(f"{self.path}: `saga-engine migrate` failed.")

    @asynccontextmanager
    async def running(self, *arguments: str, environment: Mapping[str, str]) -> AsyncIterator[int]:
        """Run one of its processes; yield the process id."""
        process = await self._start(arguments, environment)
        try:
            yield process.pid
        finally:
            await terminate(process)

    async def _start(
        self, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            self.python,
            *arguments,
            env={**os.environ, "PYTHONPATH": str(self.path), **environment},
            cwd=self.path,
            stdout=asyncio.subprocess.DEVNULL,
        )


@dataclass(frozen=True, slots=True)
class _Running:
    """The processes of one measurement, by name, their load, and the statements of the worker."""

    urls: ServerUrls
    pids: Mapping[str, int]
    load: LoadGenerator
    wire: WireCounts


async def measure(
    servers: ComparedServers,
    checkout: Checkout,
    case: Case,
    runs: int,
    readers: EventReaders | None = None,
) -> dict[str, float]:
    """Return the milliseconds of processor time per run, by process."""
    async with _run_processes(servers, checkout, case, readers) as running:
        await _warm_up(running, case, runs)
        if readers:
            await wait_until_caught_up(running.urls.database_url)
        before = {name: cpu_seconds(pid) for name, pid in running.pids.items()}
        await running.load.run(runs, max_in_flight=case.runs_in_flight)
        if case.readers:
            await asyncio.sleep(SETTLE_SECONDS)
        if readers:
            await wait_until_caught_up(running.urls.database_url)
        return {
            name: (cpu_seconds(pid) - before[name]) * 1000 / runs
            for name, pid in running.pids.items()
        }


@asynccontextmanager
async def _run_processes(
    servers: ComparedServers,
    checkout: Checkout,
    case: Case,
    readers: EventReaders | None = None,
    *,
    is_counted: bool = False,
) -> AsyncIterator[_Running]:
    options = ("--events",) if readers is EventReaders.READ_MODELS else ()
    engine = ("-m", "saga_engine", "worker", "examples.place_order.sagas", "--port", "0", *options)
    services = ("-m", "saga_engine", "participant", "benchmarks.services", "--port", "0")
    async with AsyncExitStack() as stack:
        urls = await stack.enter_async_context(servers.isolated_urls())
        environment = {
            **urls.environment,
            "PLACE_ORDER_DATABASE_URL": urls.database_url if case.barrier else "",
        }
        await checkout.migrate(environment)
        worker_environment, wire = dict(environment), WireCounts()
        if is_counted:
            counted_url, wire = await stack.enter_async_context(counted(urls.database_url))
            worker_environment |= {"SAGA_ENGINE_DATABASE_URL": counted_url, **QUIET_DUTIES}
        pids = {"rabbitmq": urls.pids[0], "postgresql": urls.pids[1]}
        for name, arguments, variables in (
            ("worker", engine, worker_environment),
            ("participants", services, environment),
        ):
            started = checkout.running(*arguments, environment=variables)
            pids[name] = await stack.enter_async_context(started)
        if readers and readers.sink:
            running = _running_feed(servers, checkout, readers, environment)
            pids |= await stack.enter_async_context(running)
        load = await stack.enter_async_context(LoadGenerator(urls, case.workload))
        yield _Running(urls, pids, load, wire)


async def _warm_up(running: _Running, case: Case, runs: int) -> None:
    await running.load.run(min(WARMUP_RUNS, runs), max_in_flight=min(20, case.runs_in_flight))


@asynccontextmanager
async def _running_feed(
    servers: ComparedServers,
    checkout: Checkout,
    readers: EventReaders,
    environment: Mapping[str, str],
) -> AsyncIterator[Mapping[str, int]]:
    """Run a projector with a feed; yield its process id and that of the server it publishes to."""
    server = servers.feed_server
    assert server is not None, "main starts it for the case"
    environment = {**environment, **server.environment}
    async with AsyncExitStack() as stack:
        if readers.sink is Sink.EXCHANGE:
            await stack.enter_async_context(bound_queue(server.address))
        running = checkout.running(*readers.feed_command, environment=environment)
        yield {"feed": await stack.enter_async_context(running), "feed_server": server.pid}


async def _measure_with_retries(
    servers: ComparedServers,
    checkout: Checkout,
    case: Case,
    runs: int,
    readers: EventReaders | None = None,
) -> dict[str, float]:
    """Measure; retry if a run has an unexpected status, as on an overloaded machine."""
    for _ in range(MAX_ATTEMPTS - 1):
        try:
            return await measure(servers, checkout, case, runs, readers)
        except SystemExit as error:
            print(f"{checkout.path}: {error}; measuring again.", file=sys.stderr, flush=True)
    return await measure(servers, checkout, case, runs, readers)


async def compare(
    servers: ComparedServers, checkouts: Mapping[str, Checkout], case: Case, pairs: int, runs: int
) -> None:
    """Measure the pairs of one case and print the results."""
    measurements: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(pairs):
        for name in SIDE_NAMES if number % 2 == 0 else SIDE_NAMES[::-1]:
            checkout = checkouts["after" if case.readers else name]
            readers = case.readers if name == "after" else None
            measurements[name].append(
                await _measure_with_retries(servers, checkout, case, runs, readers)
            )
    cost = engine_cost if case.readers else relative_cost
    for name in SIDE_NAMES:
        medians = {
            process: round(median(each[process] for each in measurements[name]), 3)
            for process in measurements[name][0]
        }
        medians["relative_cost"] = round(median(map(cost, measurements[name])), 3)
        print_result(case=case.name, side=name, cpu_ms_per_run=medians)
    print_result(case=case.name, pairs=pairs, **ratio_fields("ratio", measurements, cost))
    if servers.feed_server:
        fields = ratio_fields("ratio_with_readers", measurements, engine_cost_with_readers)
        server = servers.feed_server.description
        print_result(case=case.name, pairs=pairs, feed_server=server, **fields)


async def print_statement_counts(
    servers: ComparedServers, checkouts: Mapping[str, Checkout], case: Case, runs: int
) -> None:
    """Print the statements and round trips of the worker, in total and per transaction."""
    for name, checkout in checkouts.items():
        async with _run_processes(servers, checkout, case, is_counted=True) as running:
            await _warm_up(running, case, runs)
            running.wire.take()
            await running.load.run(runs, max_in_flight=case.runs_in_flight)
            counts = sum(running.wire.take().values(), TransactionCounts())
        print_result(
            case=case.name,
            side=name,
            **asdict(counts),
            statements_per_transaction=round(counts.statements / counts.transactions, 2),
            round_trips_per_transaction=round(counts.round_trips / counts.transactions, 2),
        )


def print_result(**fields: object) -> None:
    """Print one JSON line."""
    print(json.dumps(fields), flush=True)


async def main() -> None:
    """Compare the cases named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    this = Path(__file__).parent.parent
    parser.add_argument("--before", type=Path, default=this, help="by default this checkout")
    parser.add_argument("--after", type=Path, default=this, help="by default this checkout")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument(
        "--runs", type=int, default=1000, help="runs per case; one-at-a-time takes a tenth"
    )
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument(
        "--statements", action="store_true", help="count SQL statements instead, once"
    )
    arguments = parser.parse_args()
    checkouts = {"before": Checkout(arguments.before), "after": Checkout(arguments.after)}
    cases = [each for each in CASES if not arguments.case or each.name in arguments.case]
    async with AsyncExitStack() as stack:
        rabbit = await stack.enter_async_context(RabbitMQServer())
        postgres = await stack.enter_async_context(PostgresServer())
        for case in cases:
            runs = max(1, arguments.runs // 10) if case.runs_in_flight == 1 else arguments.runs
            async with _feed_server(case) as feed_server:
                servers = ComparedServers(rabbit, postgres, feed_server)
                if arguments.statements:
                    await print_statement_counts(servers, checkouts, case, runs)
                else:
                    await compare(servers, checkouts, case, arguments.pairs, runs)


@asynccontextmanager
async def _feed_server(case: Case) -> AsyncIterator[SinkServer | None]:
    """Start the server that the feed of a case publishes to, if it has one."""
    if case.readers is None or case.readers.sink is None:
        yield None
        return
    async with start_sink_server(case.readers.sink) as server:
        yield server


if __name__ == "__main__":
    asyncio.run(main())
