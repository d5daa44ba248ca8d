"""
Compare the processor time per run of two checkouts, relative to that of RabbitMQ in the same run.

    python -m benchmarks.compare --before CHECKOUT --after CHECKOUT [--pairs 12] [--case success]

Each checkout runs its own code with its own `.venv`; this checkout starts the runs and receives
their results. Both use the same servers, with an empty virtual host and an empty database for each
measurement. A pair measures one after the other, and the next pair in the reverse order, so that
other load on the machine affects both alike. Each case prints two JSON lines with milliseconds per
run by process, and one with the median of the ratios after/before and an interval that contains it
with a probability of at least 95 % (from order statistics, without assuming a distribution; below
six pairs the interval is the whole range).
"""

import argparse
import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from math import comb
from pathlib import Path
from statistics import median

from benchmarks.load_generator import LoadGenerator
from benchmarks.processes import ServerUrls, cpu_seconds, terminate
from saga_engine.embedded.postgres import PostgresServer
from tests.kit.rabbitmq import RabbitMQServer

STATEMENT_COUNTER = Path(__file__).with_name("statement_counter.py")


@dataclass(frozen=True, slots=True)
class Case:
    """One case: the card, with or without the barrier, and how many runs are in flight."""

    name: str
    card: str
    barrier: bool
    runs_in_flight: int


CASES = (
    Case("success", "ok", barrier=False, runs_in_flight=200),
    Case("success-barrier", "ok", barrier=True, runs_in_flight=200),
    Case("rollback", "declined-late", barrier=False, runs_in_flight=200),
    Case("rollback-barrier", "declined-late", barrier=True, runs_in_flight=200),
    Case("one-at-a-time", "ok", barrier=False, runs_in_flight=1),
)
SIDE_NAMES = ("before", "after")
MAX_ATTEMPTS = 3
WARMUP_RUNS = 100
"""Runs before the measurement."""


class SharedServers:
    """One RabbitMQ and one PostgreSQL for all measurements."""

    def __init__(self, rabbit: RabbitMQServer, postgres: PostgresServer) -> None:
        self.rabbit = rabbit
        self.postgres = postgres
        self._numbers = count(1)

    @asynccontextmanager
    async def isolated_urls(self) -> AsyncIterator[ServerUrls]:
        """Create an empty virtual host and database, and delete them after use."""
        name = f"compared_{next(self._numbers)}"
        await self.rabbit.rabbitmqctl("add_vhost", name)
        await self.rabbit.rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        database = await self.postgres.create_database(name)
        try:
            yield ServerUrls(
                self.rabbit.url_of(name), database, (self.rabbit.pid, self.postgres.pid)
            )
        finally:
            await self.rabbit.rabbitmqctl("delete_vhost", name)
            await self.postgres.drop_database(name)


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


async def measure(
    servers: SharedServers,
    checkout: Checkout,
    case: Case,
    runs: int,
    extra_environment: Mapping[str, str],
) -> dict[str, float]:
    """Return the milliseconds of processor time per run, by process."""
    engine = (str(STATEMENT_COUNTER), "worker", "examples.place_order.sagas", "--port", "0")
    services = ("-m", "saga_engine", "participant", "benchmarks.services", "--port", "0")
    async with AsyncExitStack() as stack:
        urls = await stack.enter_async_context(servers.isolated_urls())
        environment = {
            **urls.environment,
            **extra_environment,
            "PLACE_ORDER_DATABASE_URL": urls.database_url if case.barrier else "",
        }
        await checkout.migrate(environment)
        pids = {"rabbitmq": urls.pids[0], "postgresql": urls.pids[1]}
        for name, arguments in (("worker", engine), ("participants", services)):
            started = checkout.running(*arguments, environment=environment)
            pids[name] = await stack.enter_async_context(started)
        expected_status = "completed" if case.card == "ok" else "compensated"
        load = await stack.enter_async_context(
            LoadGenerator(urls, card=case.card, expected_status=expected_status)
        )
        await load.run(min(WARMUP_RUNS, runs), max_in_flight=min(20, case.runs_in_flight))
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        await load.run(runs, max_in_flight=case.runs_in_flight)
        return {name: (cpu_seconds(pid) - before[name]) * 1000 / runs for name, pid in pids.items()}


async def _measure_with_retries(
    servers: SharedServers, checkout: Checkout, case: Case, runs: int
) -> dict[str, float]:
    """Measure; retry if a run has an unexpected status, as on an overloaded machine."""
    for _ in range(MAX_ATTEMPTS - 1):
        try:
            return await measure(servers, checkout, case, runs, {})
        except SystemExit as error:
            print(f"{checkout.path}: {error}; measuring again.", file=sys.stderr, flush=True)
    return await measure(servers, checkout, case, runs, {})


def relative_cost(cpu_ms: Mapping[str, float]) -> float:
    """Return the cost of the engine and PostgreSQL, relative to RabbitMQ's in the same runs."""
    return (cpu_ms["worker"] + cpu_ms["participants"] + cpu_ms["postgresql"]) / cpu_ms["rabbitmq"]


def confidence_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the shortest interval of ordered ratios that contains the median with 95 %."""
    ordered, count_of_ratios = sorted(ratios), len(ratios)
    rank, outside_probability = 0, 2.0 / 2**count_of_ratios
    while (
        outside_probability + 2 * comb(count_of_ratios, rank + 1) / 2**count_of_ratios <= 0.05
        and 2 * (rank + 2) < count_of_ratios
    ):
        rank += 1
        outside_probability += 2 * comb(count_of_ratios, rank) / 2**count_of_ratios
    return ordered[rank], ordered[count_of_ratios - 1 - rank], 1 - outside_probability


async def compare(
    servers: SharedServers, checkouts: Mapping[str, Checkout], case: Case, pairs: int, runs: int
) -> None:
    """Measure the pairs of one case and print the results."""
    measurements: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(pairs):
        for name in SIDE_NAMES if number % 2 == 0 else SIDE_NAMES[::-1]:
            measurements[name].append(
                await _measure_with_retries(servers, checkouts[name], case, runs)
            )
    for name in SIDE_NAMES:
        medians = {
            process: round(median(each[process] for each in measurements[name]), 3)
            for process in measurements[name][0]
        }
        medians["relative_cost"] = round(median(map(relative_cost, measurements[name])), 3)
        print_result(case=case.name, side=name, cpu_ms_per_run=medians)
    ratios = [
        relative_cost(after) / relative_cost(before)
        for before, after in zip(measurements["before"], measurements["after"], strict=True)
    ]
    low, high, coverage = confidence_interval(ratios)
    print_result(
        case=case.name,
        pairs=pairs,
        ratio=round(median(ratios), 3),
        interval=[round(low, 3), round(high, 3)],
        coverage=round(coverage, 3),
    )


async def print_statement_counts(
    servers: SharedServers, checkouts: Mapping[str, Checkout], case: Case, runs: int
) -> None:
    """Print the statements and round trips of the worker, in total and per transaction."""
    for name, checkout in checkouts.items():
        report = Path.cwd() / f".statements-{name}"
        # Periodic duties would distort the counts.
        extra_environment = {
            "STATEMENTS_REPORT": str(report),
            "SAGA_ENGINE_MAINTENANCE_INTERVAL": "3600",
        }
        await measure(servers, checkout, case, runs, extra_environment)
        counts = json.loads(report.read_text())
        report.unlink()
        print_result(case=case.name, side=name, **counts)


def print_result(**fields: object) -> None:
    """Print one JSON line."""
    print(json.dumps(fields), flush=True)


async def main() -> None:
    """Compare the cases named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
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
    async with RabbitMQServer() as rabbit, PostgresServer() as postgres:
        servers = SharedServers(rabbit, postgres)
        for case in CASES:
            if arguments.case and case.name not in arguments.case:
                continue
            runs = max(1, arguments.runs // 10) if case.runs_in_flight == 1 else arguments.runs
            if arguments.statements:
                await print_statement_counts(servers, checkouts, case, runs)
            else:
                await compare(servers, checkouts, case, arguments.pairs, runs)


if __name__ == "__main__":
    asyncio.run(main())
