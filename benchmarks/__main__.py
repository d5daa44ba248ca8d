"""
Measure: make bench BENCH="--runs 3000 --case complete --workers 1".

Starts a private RabbitMQ and PostgreSQL, the worker and the participants as processes of their own,
and sends them place-order runs. One JSON line per case:

    {"case", "runs", "runs_per_s", "p50_ms", "p99_ms", "cpu_s"}

the case `hostile` (see benchmarks.hostile), one line a command of the command line,

    {"case": "cli", "command", "cpu_s"}

and for the throughput cases "of_pipeline": the share of what the same messages over the same queues
reach with no engine and no database, measured in the same run. "cpu_ms_a_run" has the processor
time by process. To compare two checkouts there is benchmarks.compare.
"""

import argparse
import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import hostile
from benchmarks.commands import measure_commands
from benchmarks.load import Load, Measured
from benchmarks.pipeline import bare_pipeline
from benchmarks.processes import cpu_seconds, engine, servers


@dataclass(frozen=True, slots=True)
class Case:
    """What is run: which card, with the barrier or without, and how many runs at a time."""

    name: str
    card: str
    barrier: bool
    at_once: int

    @property
    def ends(self) -> str:
        """How each of its runs must end."""
        return "completed" if self.card == "ok" else "compensated"


CASES = (
    Case("complete", "ok", barrier=False, at_once=400),
    Case("complete-barrier", "ok", barrier=True, at_once=400),
    Case("rollback", "declined-late", barrier=False, at_once=400),
    Case("rollback-barrier", "declined-late", barrier=True, at_once=400),
    Case("latency", "ok", barrier=False, at_once=1),
    Case("latency-barrier", "ok", barrier=True, at_once=1),
)


async def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--runs", type=int, default=3000, help="runs per throughput case")
    names = [*(case.name for case in CASES), "hostile", "cli"]
    parser.add_argument("--case", action="append", choices=names)
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    arguments = parser.parse_args()
    wanted = arguments.case or names
    chosen = [case for case in CASES if case.name in wanted]
    if chosen:
        await measure(chosen, arguments)
    if "hostile" in wanted:
        async with servers() as urls:
            print(json.dumps(await hostile.measure(urls, "objects-and-texts", 1000)), flush=True)
    if "cli" in wanted:
        async with servers() as urls:
            await measure_commands(urls)


async def measure(chosen: Sequence[Case], arguments: argparse.Namespace) -> None:
    """Measure the cases of honest runs, beside a pipeline."""
    async with servers() as urls:
        limit = await bare_pipeline(urls, runs=arguments.runs)
        tell("pipeline", limit, {})
        for case in chosen:
            runs = min(arguments.runs, 300) if case.at_once == 1 else arguments.runs
            async with (
                engine(urls, workers=arguments.workers, barrier=case.barrier) as pids,
                Load(urls, card=case.card, ends=case.ends) as load,
            ):
                await load.run(min(200, runs), at_once=min(50, case.at_once))  # to warm up
                before = {name: cpu_of(each) for name, each in pids.items()}
                measured = await load.run(runs, at_once=case.at_once)
                spent = {name: cpu_of(each) - before[name] for name, each in pids.items()}
                measured.cpu_s = sum(spent.values())
            share = measured.runs_per_s / limit.runs_per_s
            more: dict[str, object] = {
                "cpu_ms_a_run": {name: round(s * 1000 / runs, 2) for name, s in spent.items()}
            }
            if case.at_once > 1:
                more["of_pipeline"] = round(share, 2)
            tell(case.name, measured, more)


def cpu_of(pids: Iterable[int]) -> float:
    """Seconds of processor time of some processes."""
    return sum(map(cpu_seconds, pids))


def tell(case: str, measured: Measured, more: Mapping[str, object]) -> None:
    """Print one line."""
    line = {
        "case": case,
        "runs": measured.runs,
        "runs_per_s": round(measured.runs_per_s, 1),
        "p50_ms": round(measured.percentile(50), 1),
        "p99_ms": round(measured.percentile(99), 1),
        "cpu_s": round(measured.cpu_s, 2),
    }
    print(json.dumps({**line, **more}), flush=True)


asyncio.run(main())
