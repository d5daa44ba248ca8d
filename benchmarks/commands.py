"""
What one command of the command line costs: seconds of processor time of its process.

Each is run five times, and the median is printed: `list`, `show` of a run, `incidents`,
`resolve` of an incident that does not exist, and `--help`. The first four have to stay under 0.5 s.
"""

import asyncio
import json
import resource
from statistics import median

from benchmarks.load import Load
from benchmarks.processes import Urls, engine, python

TIMES = 5


async def measure_commands(urls: Urls) -> None:
    """Print one line a command."""
    async with (
        engine(urls, workers=1, barrier=False),
        Load(urls, card="ok", ends="completed") as load,
    ):
        [run_id] = await load.start(1)
        while load.begun:
            await load.end(60)
        commands = {
            "list": ("list",),
            "show": ("show", str(run_id)),
            "incidents": ("incidents",),
            "resolve": (
                *("resolve", f"{run_id}/1", "retry"),
                *("--reason", "measured", "--by", "bench"),
            ),
            "--help": ("--help",),
        }
        for name, arguments in commands.items():
            spent = [await _spent(urls, arguments) for _ in range(TIMES)]
            line = {"case": "cli", "command": name, "cpu_s": round(median(spent), 3)}
            print(json.dumps(line), flush=True)


async def _spent(urls: Urls, arguments: tuple[str, ...]) -> float:
    before = _children()
    process = await python("-m", "saga_engine", *arguments, environment=urls.environment)
    await process.wait()
    await asyncio.sleep(0)
    return _children() - before


def _children() -> float:
    """Seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
