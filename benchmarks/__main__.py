"""
Measure: make bench BENCH="--runs 3000 --case complete --workers 1".

Starts a private RabbitMQ and PostgreSQL, the worker and the participants as processes of their own,
and sends them place-order runs. One JSON line per case:

    {"case", "runs", "runs_per_s", "p50_ms", "p99_ms", "cpu_s"}

and for the throughput cases "of_pipeline": the share of what the same messages over the same queues
reach with no engine and no database, measured in the same run.
"""

import argparse
import asyncio
import json
from dataclasses import dataclass

from benchmarks.load import Load, Measured
from benchmarks.pipeline import bare_pipeline
from benchmarks.processes import engine, servers


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
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if not arguments.case or case.name in arguments.case]
    async with servers() as urls:
        limit = await bare_pipeline(urls, runs=arguments.runs)
        tell("pipeline", limit, {})
        for case in chosen:
            runs = min(arguments.runs, 300) if case.at_once == 1 else arguments.runs
            async with (
                engine(urls, workers=arguments.workers, barrier=case.barrier) as cpu,
                Load(urls, card=case.card, ends=case.ends) as load,
            ):
                await load.run(min(200, runs), at_once=min(50, case.at_once))  # to warm up
                before = cpu()
                measured = await load.run(runs, at_once=case.at_once)
                measured.cpu_s = cpu() - before
            share = measured.runs_per_s / limit.runs_per_s
            tell(case.name, measured, {} if case.at_once == 1 else {"of_pipeline": round(share, 2)})


def tell(case: str, measured: Measured, more: dict[str, float]) -> None:
    """Print one line."""
    line = {
        "case": case,
        "runs": measured.runs,
        "runs_per_s": round(measured.runs_per_s, 1),
        "p50_ms": round(measured.percentile(50), 1),
        "p99_ms": round(measured.percentile(99), 1),
        "cpu_s": round(measured.cpu_s, 2),
    }
    print(json.dumps(line | more), flush=True)


asyncio.run(main())
