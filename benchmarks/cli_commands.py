"""
The time and the processor time of one `saga-engine` command, in seconds.

Each command runs seven times, all of them in turns, and the medians are printed: `list`, `show` of
a run, `incidents`, `resolve` of an incident that does not exist, and `--help`. The processor time
of the first four must stay under 0.5 s.
"""

import asyncio
import resource
import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from benchmarks.figures import Report, figure_of
from benchmarks.load_generator import LoadGenerator
from benchmarks.processes import ServerUrls, run_engine, start_python

REPETITIONS = 7


async def measure_commands(urls: ServerUrls, report: Report) -> None:
    """Report the figures of each command."""
    async with run_engine(urls), LoadGenerator(urls) as load:
        [run_id] = await load.start_runs(1)
        while load.started_at:
            await load.wait_for_results(60)
        commands = {
            "list": ("list",),
            "show": ("show", str(run_id)),
            "incidents": ("incidents",),
            "resolve": (
                *("resolve", f"{run_id}/1", "retry"),
                *("--reason", "measured", "--operator", "bench"),
            ),
            "--help": ("--help",),
        }
        measured: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        for _ in range(REPETITIONS):
            for name, arguments in commands.items():
                measured[name].append(await _seconds_of(urls, arguments))
    for name, repetitions in measured.items():
        seconds, cpu_s = zip(*repetitions, strict=True)
        report.print(
            case="cli",
            command=name,
            seconds=round(median(seconds), 3),
            cpu_s=round(median(cpu_s), 3),
        )
        if name == "list":
            remark = f"processor time {median(cpu_s):.2f} s"
            report.add("cli", "list_seconds", figure_of(seconds), remark=remark)


async def _seconds_of(urls: ServerUrls, arguments: Sequence[str]) -> tuple[float, float]:
    """Return the seconds and the processor seconds of one command."""
    cpu_before, started_at = _children_cpu_seconds(), time.perf_counter()
    command = ("-m", "saga_engine", *arguments)
    process = await start_python(*command, environment=urls.environment, quiet=True)
    await process.wait()
    seconds = time.perf_counter() - started_at
    await asyncio.sleep(0)
    return seconds, _children_cpu_seconds() - cpu_before


def _children_cpu_seconds() -> float:
    """Return the processor time of all child processes that have exited."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
