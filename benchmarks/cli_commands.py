"""
The processor time of one `saga-engine` command, in seconds.

Each command runs five times, and the median is printed: `list`, `show` of a run, `incidents`,
`resolve` of an incident that does not exist, and `--help`. The first four must stay under 0.5 s.
"""

import asyncio
import json
import resource
from statistics import median

from benchmarks.load_generator import LoadGenerator
from benchmarks.processes import ServerUrls, run_engine, start_python

REPETITIONS = 5


async def measure_commands(urls: ServerUrls) -> None:
    """Print one JSON line for each command."""
    async with (
        run_engine(urls, workers=1, barrier=False),
        LoadGenerator(urls, card="ok", expected_status="completed") as load,
    ):
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
        for name, arguments in commands.items():
            cpu_times = [await _cpu_seconds_of(urls, arguments) for _ in range(REPETITIONS)]
            line = {"case": "cli", "command": name, "cpu_s": round(median(cpu_times), 3)}
            print(json.dumps(line), flush=True)


async def _cpu_seconds_of(urls: ServerUrls, arguments: tuple[str, ...]) -> float:
    before = _children_cpu_seconds()
    process = await start_python("-m", "saga_engine", *arguments, environment=urls.environment)
    await process.wait()
    await asyncio.sleep(0)
    return _children_cpu_seconds() - before


def _children_cpu_seconds() -> float:
    """Return the processor time of all child processes that have exited."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
