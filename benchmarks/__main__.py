"""
Measure the engine: `make bench BENCH="runs --runs 3000 --case complete --workers 1"`.

There are two families of cases, `runs` and `events`; without a name both are measured. `runs`
starts a private RabbitMQ and a private PostgreSQL, a worker and the participants as processes, and
sends them place-order runs. Each case prints one JSON line:

    {"case", "runs", "runs_per_s", "p50_ms", "p99_ms", "cpu_s", "cpu_ms_per_run"}

`cpu_ms_per_run` is processor time by process. A throughput case also has `share_of_baseline`: its
throughput as a share of what the same messages reach over the same queues with no engine and no
database, measured in the same invocation. The case `hostile` is described in `benchmarks.hostile`.
The case `cli` prints one line for each command:

    {"case": "cli", "command", "cpu_s"}

`events` appends events, fills read models from them, publishes and consumes them, see
`benchmarks.events`:

    make bench BENCH="events --events 100000 --case rebuild-folded --case feed-kafka"

`benchmarks.compare` compares two checkouts.
"""

import argparse
import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import hostile
from benchmarks.baseline import measure_baseline
from benchmarks.cli_commands import measure_commands
from benchmarks.events import cases as event_cases
from benchmarks.load_generator import LoadGenerator, Measurement
from benchmarks.processes import cpu_seconds, run_engine, start_servers


@dataclass(frozen=True, slots=True)
class Case:
    """One case: the card, with or without the barrier, and how many runs are in flight."""

    name: str
    card: str
    barrier: bool
    runs_in_flight: int

    @property
    def expected_status(self) -> str:
        """The final status that each run must reach."""
        return "completed" if self.card == "ok" else "compensated"


CASES = (
    Case("complete", "ok", barrier=False, runs_in_flight=400),
    Case("complete-barrier", "ok", barrier=True, runs_in_flight=400),
    Case("rollback", "declined-late", barrier=False, runs_in_flight=400),
    Case("rollback-barrier", "declined-late", barrier=True, runs_in_flight=400),
    Case("latency", "ok", barrier=False, runs_in_flight=1),
    Case("latency-barrier", "ok", barrier=True, runs_in_flight=1),
)


RUN_CASES = (*(case.name for case in CASES), "hostile", "cli")


async def main() -> None:
    """Measure the cases named on the command line, or all of a family, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("family", nargs="?", choices=["runs", "events"])
    parser.add_argument("--runs", type=int, default=3000, help="runs per throughput case")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument(
        "--events",
        type=int,
        default=1_000_000,
        help="events of a rebuild, even; the other cases have fewer",
    )
    of_family = {"runs": RUN_CASES, "events": event_cases.NAMES}
    parser.add_argument("--case", action="append", choices=[*RUN_CASES, *event_cases.NAMES])
    arguments = parser.parse_args()
    families = [arguments.family] if arguments.family else [*of_family]
    names = {name for family in families for name in of_family[family]}
    if arguments.case and not names.issuperset(arguments.case):
        parser.error(f"{arguments.family} has the cases {', '.join(of_family[arguments.family])}")
    names = set(arguments.case or names)
    await measure_runs(names, arguments)
    await event_cases.measure(names, arguments.events)


async def measure_runs(names: Collection[str], arguments: argparse.Namespace) -> None:
    """Measure the cases of runs that *names* has."""
    cases = [case for case in CASES if case.name in names]
    if cases:
        await measure(cases, arguments)
    if "hostile" in names:
        async with start_servers() as urls:
            print(json.dumps(await hostile.measure(urls, "objects-and-texts", 1000)), flush=True)
    if "cli" in names:
        async with start_servers() as urls:
            await measure_commands(urls)


async def measure(cases: Sequence[Case], arguments: argparse.Namespace) -> None:
    """Measure the cases of place-order runs, and the baseline."""
    async with start_servers() as urls:
        baseline = await measure_baseline(urls, runs=arguments.runs)
        print_result("baseline", baseline, {})
        for case in cases:
            runs = min(arguments.runs, 300) if case.runs_in_flight == 1 else arguments.runs
            async with (
                run_engine(urls, workers=arguments.workers, barrier=case.barrier) as pids,
                LoadGenerator(urls, card=case.card, expected_status=case.expected_status) as load,
            ):
                warmup = min(200, runs)
                await load.run(warmup, max_in_flight=min(50, case.runs_in_flight))
                before = {name: total_cpu_seconds(each) for name, each in pids.items()}
                measured = await load.run(runs, max_in_flight=case.runs_in_flight)
                cpu_by_process = {
                    name: total_cpu_seconds(each) - before[name] for name, each in pids.items()
                }
                measured.cpu_s = sum(cpu_by_process.values())
            baseline_share = measured.runs_per_s / baseline.runs_per_s
            extra_fields: dict[str, object] = {
                "cpu_ms_per_run": {
                    name: round(seconds * 1000 / runs, 2)
                    for name, seconds in cpu_by_process.items()
                }
            }
            if case.runs_in_flight > 1:
                extra_fields["share_of_baseline"] = round(baseline_share, 2)
            print_result(case.name, measured, extra_fields)


def total_cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time of some processes in seconds."""
    return sum(map(cpu_seconds, pids))


def print_result(case: str, measured: Measurement, extra_fields: Mapping[str, object]) -> None:
    """Print one JSON line."""
    line = {
        "case": case,
        "runs": measured.runs,
        "runs_per_s": round(measured.runs_per_s, 1),
        "p50_ms": round(measured.percentile(50), 1),
        "p99_ms": round(measured.percentile(99), 1),
        "cpu_s": round(measured.cpu_s, 2),
    }
    print(json.dumps({**line, **extra_fields}), flush=True)


asyncio.run(main())
