"""
Where the processor time of a worker and of a participant goes, by part of the engine.

    .venv/bin/pip install py-spy
    python -m benchmarks.runs.profile_groups [--seconds 8] [--in-flight 400] [--barrier]

It keeps runs in flight while py-spy samples both processes 250 times a second, and prints the share
of the samples of each group. A sample belongs to the group of its innermost frame that has one: the
time of a library that no group names belongs to the module that called it.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.figures import Report
from benchmarks.load_generator import LoadGenerator
from benchmarks.processes import run_engine
from benchmarks.runs.sides import IN_FLIGHT, WARMUP_RUNS
from benchmarks.servers import start_shared_servers

GROUPS: Mapping[str, tuple[str, ...]] = {
    "decider": ("saga_engine/decider/", "saga_engine/saga/", "dataclasses.py", "enum.py"),
    "payload": ("saga_engine/payload/", "pydantic"),
    "protocol": ("saga_engine/protocol/", "saga_engine/identifiers.py", "uuid.py"),
    "amqp": ("saga_engine/amqp/", "aiormq/", "pamqp/", "aio_pika/"),
    "store": ("saga_engine/store/",),
    "database client": ("saga_engine/postgres/", "asyncpg/", "sqlalchemy/", "greenlet"),
    "worker": ("saga_engine/worker/",),
    "participant": ("saga_engine/participant/",),
    "telemetry": ("saga_engine/telemetry/", "structlog/", "prometheus_client/", "logging/"),
    "event loop": ("asyncio/", "selectors.py", "uvloop"),
}
OTHER = "other"
WAITING_FRAME = "wait (threading.py"
"""py-spy counts a thread that waits with a timeout as busy if the machine is."""

RATE = 250
"""Samples a second; more disturb the process."""

CHUNK_RUNS = 500


def group_of(stack: str) -> str:
    """Return the group of a stack, whose frames py-spy separates by semicolons."""
    for frame in reversed(stack.split(";")):
        path = frame.rpartition("(")[2]
        for group, parts in GROUPS.items():
            if any(part in path for part in parts):
                return group
    return OTHER


def shares(lines: Iterable[str]) -> dict[str, float]:
    """Return the percentage of samples of each group; each line is a stack and its samples."""
    samples: Counter[str] = Counter()
    for line in lines:
        stack, _, number = line.rpartition(" ")
        if stack and WAITING_FRAME not in stack.rpartition(";")[2]:
            samples[group_of(stack)] += int(number)
    total = samples.total() or 1
    return {group: round(number * 100 / total, 1) for group, number in samples.most_common()}


async def main() -> None:
    """Run the engine at full load, profile it, and print the shares."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runs.profile_groups")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT)
    parser.add_argument("--barrier", action="store_true")
    arguments = parser.parse_args()
    report = Report()
    async with (
        start_shared_servers() as servers,
        servers.isolated_urls() as urls,
        run_engine(urls, barrier=arguments.barrier) as pids,
        LoadGenerator(urls) as load,
    ):
        await load.run(WARMUP_RUNS, max_in_flight=min(50, arguments.in_flight))
        roles = ("worker", "participants")
        with tempfile.TemporaryDirectory() as directory:
            files = {role: Path(directory, role) for role in roles}
            profilers = [
                await _start_profiler(pids[role][0], files[role], arguments.seconds)
                for role in roles
            ]
            while any(each.returncode is None for each in profilers):
                await load.run(CHUNK_RUNS, max_in_flight=arguments.in_flight)
            for role, file in files.items():
                percent = shares(file.read_text().splitlines())
                report.print(case="profile", process=role, percent=percent)


async def _start_profiler(pid: int, output: Path, seconds: int) -> asyncio.subprocess.Process:
    own = Path(sys.executable).with_name("py-spy")
    program = str(own) if own.exists() else shutil.which("py-spy")
    if program is None:
        raise SystemExit("py-spy is not installed. Run `.venv/bin/pip install py-spy`.")
    options = ("--format", "raw", "--rate", str(RATE), "--duration", str(seconds))
    return await asyncio.create_subprocess_exec(
        *(program, "record", "--pid", str(pid), *options, "--output", str(output)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


if __name__ == "__main__":
    asyncio.run(main())
