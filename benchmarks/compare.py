"""
Compare two checkouts: the processor time of a run, relative to RabbitMQ's in the same run.

    python -m benchmarks.compare --before CHECKOUT --after CHECKOUT [--pairs 12] [--case success]

Each checkout runs its own code with its own `.venv`; this one only starts runs and hears of their
ends. Both use the same servers, each pair a virtual host and a database of its own, one after the
other, and in the other order the next time: what the machine does besides concerns both alike. For
each case two JSON lines with milliseconds a run by process, and one with the median of the ratios
after/before and the interval that holds it with at least 95 % (order statistics, no distribution
assumed; below six pairs there is none, and what is printed is all of them).
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

from benchmarks.load import Load
from benchmarks.processes import Urls, cpu_seconds, ended
from saga_engine.embedded.postgres import PostgresServer
from tests.kit.rabbitmq import RabbitServer

COUNTED = Path(__file__).with_name("counted.py")


@dataclass(frozen=True, slots=True)
class Case:
    """What is run: which card, with the barrier or without, and how many runs at a time."""

    name: str
    card: str
    barrier: bool
    at_once: int


CASES = (
    Case("success", "ok", barrier=False, at_once=200),
    Case("success-barrier", "ok", barrier=True, at_once=200),
    Case("rollback", "declined-late", barrier=False, at_once=200),
    Case("rollback-barrier", "declined-late", barrier=True, at_once=200),
    Case("one-at-a-time", "ok", barrier=False, at_once=1),
)
SIDES = ("before", "after")
TRIES = 3
WARM = 100
"""Runs before those that count."""


class Servers:
    """One RabbitMQ and one PostgreSQL for all of it."""

    def __init__(self, rabbit: RabbitServer, postgres: PostgresServer) -> None:
        self.rabbit = rabbit
        self.postgres = postgres
        self._numbers = count(1)

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[Urls]:
        """An empty virtual host and an empty database; those left behind would cost both sides."""
        name = f"compared_{next(self._numbers)}"
        await self.rabbit.ctl("add_vhost", name)
        await self.rabbit.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        database = await self.postgres.create_database(name)
        try:
            yield Urls(self.rabbit.url_of(name), database, (self.rabbit.pid, self.postgres.pid))
        finally:
            await self.rabbit.ctl("delete_vhost", name)
            await self.postgres.drop_database(name)


class Side:
    """One checkout; what it starts runs its code."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout.resolve()
        own = self.checkout / ".venv/bin/python"
        self.python = str(own) if own.exists() else sys.executable

    async def migrate(self, environment: Mapping[str, str]) -> None:
        """Make its tables."""
        process = await self._start(("-m", "saga_engine", "migrate"), environment)
        if await process.wait():
            raise SystemExit(f"{self.checkout}: `saga-engine migrate` failed.")

    @asynccontextmanager
    async def running(self, *arguments: str, environment: Mapping[str, str]) -> AsyncIterator[int]:
        """One of its processes; its pid."""
        process = await self._start(arguments, environment)
        try:
            yield process.pid
        finally:
            await ended(process)

    async def _start(
        self, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(self.python, *arguments),
            env={**os.environ, "PYTHONPATH": str(self.checkout), **environment},
            cwd=self.checkout,
            stdout=asyncio.subprocess.DEVNULL,
        )


async def measure(
    servers: Servers, side: Side, case: Case, runs: int, more: Mapping[str, str]
) -> dict[str, float]:
    """Milliseconds of processor time a run, by process."""
    engine = (str(COUNTED), "worker", "examples.place_order.sagas", "--port", "0")
    services = ("-m", "saga_engine", "participant", "benchmarks.services", "--port", "0")
    async with AsyncExitStack() as stack:
        urls = await stack.enter_async_context(servers.fresh())
        environment = {
            **urls.environment,
            **more,
            "PLACE_ORDER_DATABASE_URL": urls.database if case.barrier else "",
        }
        await side.migrate(environment)
        pids = {"rabbitmq": urls.pids[0], "postgresql": urls.pids[1]}
        for name, arguments in (("worker", engine), ("participants", services)):
            started = side.running(*arguments, environment=environment)
            pids[name] = await stack.enter_async_context(started)
        ends = "completed" if case.card == "ok" else "compensated"
        load = await stack.enter_async_context(Load(urls, card=case.card, ends=ends))
        await load.run(min(WARM, runs), at_once=min(20, case.at_once))
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        await load.run(runs, at_once=case.at_once)
        return {name: (cpu_seconds(pid) - before[name]) * 1000 / runs for name, pid in pids.items()}


async def _measured(servers: Servers, side: Side, case: Case, runs: int) -> dict[str, float]:
    """Measure, and again if a run ended in another way, as on a machine that is too busy."""
    for _ in range(TRIES - 1):
        try:
            return await measure(servers, side, case, runs, {})
        except SystemExit as error:
            print(f"{side.checkout}: {error}; it is measured again.", file=sys.stderr, flush=True)
    return await measure(servers, side, case, runs, {})


def relative(found: Mapping[str, float]) -> float:
    """All that is the engine's doing, by what RabbitMQ took for the same messages."""
    return (found["worker"] + found["participants"] + found["postgresql"]) / found["rabbitmq"]


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The shortest interval between two of the ordered ratios that holds the median with 95 %."""
    ordered, number = sorted(ratios), len(ratios)
    rank, outside = 0, 2.0 / 2**number
    while outside + 2 * comb(number, rank + 1) / 2**number <= 0.05 and 2 * (rank + 2) < number:
        rank += 1
        outside += 2 * comb(number, rank) / 2**number
    return ordered[rank], ordered[number - 1 - rank], 1 - outside


async def compare(
    servers: Servers, sides: Mapping[str, Side], case: Case, pairs: int, runs: int
) -> None:
    """Measure pairs of one case and print what was found."""
    found: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(pairs):
        for name in SIDES if number % 2 == 0 else SIDES[::-1]:
            found[name].append(await _measured(servers, sides[name], case, runs))
    for name in SIDES:
        shown = {
            process: round(median(each[process] for each in found[name]), 3)
            for process in found[name][0]
        }
        shown["relative"] = round(median(map(relative, found[name])), 3)
        tell(case=case.name, side=name, cpu_ms_a_run=shown)
    ratios = [
        relative(after) / relative(before)
        for before, after in zip(found["before"], found["after"], strict=True)
    ]
    low, high, sure = interval(ratios)
    tell(
        case=case.name,
        pairs=pairs,
        ratio=round(median(ratios), 3),
        interval=[round(low, 3), round(high, 3)],
        coverage=round(sure, 3),
    )


async def statements(servers: Servers, sides: Mapping[str, Side], case: Case, runs: int) -> None:
    """Print the statements and round trips of the worker, a run and a transaction."""
    for name, side in sides.items():
        report = Path.cwd() / f".statements-{name}"
        # What is done when idle would blur it; commands that time out are of no matter here.
        more = {"STATEMENTS_REPORT": str(report), "SAGA_ENGINE_MAINTENANCE": "3600"}
        await measure(servers, side, case, runs, more)
        counted = json.loads(report.read_text())
        report.unlink()
        tell(case=case.name, side=name, **counted)


def tell(**line: object) -> None:
    """Print one line."""
    print(json.dumps(line), flush=True)


async def main() -> None:
    """Compare what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--runs", type=int, default=1000, help="a tenth of it, one at a time")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--statements", action="store_true", help="count them, once, instead")
    given = parser.parse_args()
    sides = {"before": Side(given.before), "after": Side(given.after)}
    async with RabbitServer() as rabbit, PostgresServer() as postgres:
        servers = Servers(rabbit, postgres)
        for case in CASES:
            if given.case and case.name not in given.case:
                continue
            runs = max(1, given.runs // 10) if case.at_once == 1 else given.runs
            if given.statements:
                await statements(servers, sides, case, runs)
            else:
                await compare(servers, sides, case, given.pairs, runs)


if __name__ == "__main__":
    asyncio.run(main())
