"""
The case `waiting-runs`: what an idle worker costs, and many runs in flight.

First the worker is idle with an empty database. Then the runs of `benchmarks.runs.waiting_sagas`
are started while their participant is stopped: their commands wait in its queue. The worker is idle
again. Then the participant answers all of them. The memory is the highest from the first start to
the last result (VmHWM, proc(5)).
"""

import asyncio
from pathlib import Path

from benchmarks.figures import Report, figure_of
from benchmarks.load_generator import LoadGenerator, Workload
from benchmarks.processes import cpu_seconds, migrate, run_process
from benchmarks.runs.run_checks import check_runs
from benchmarks.servers import SharedServers, connect

WAITING = Workload(saga="waiting-order", expected_trail=("await_stock",))
STARTS_AT_ONCE = 500
"""Starts in one publish."""

IDLE_SECONDS = 60
"""How long an idle worker is observed: as long as the interval of its rarest duties."""

SETTLE_SECONDS = 3
"""After the last transaction a worker still publishes and deletes rows of the outbox."""

POLL_SECONDS, MAX_POLLS, RESULT_SECONDS = 0.5, 3600, 120

_MODULE = "benchmarks.runs.waiting_sagas"
_WORKER = ("-m", "saga_engine", "worker", _MODULE, "--port", "0")
_PARTICIPANT = ("-m", "saga_engine", "participant", _MODULE, "--port", "0")
_IN_FLIGHT = "SELECT count(*) FROM saga_engine.run WHERE finished_at IS NULL"
_KB_PER_MB = 1024


async def measure_waiting_runs(
    servers: SharedServers, report: Report, *, runs: int, idle_seconds: float = IDLE_SECONDS
) -> None:
    """Measure an idle worker, and one with *runs* runs in flight."""
    async with servers.isolated_urls() as urls, LoadGenerator(urls, WAITING) as load:
        participant = run_process(*_PARTICIPANT, environment=urls.environment)
        await migrate(urls.environment)
        async with run_process(*_WORKER, environment=urls.environment) as worker:
            async with participant:  # it declares its queue
                await load.run(1, max_in_flight=1)
            idle = await _idle_percent(worker, idle_seconds)
            idle_memory = peak_memory_mb(worker)
            for first in range(0, runs, STARTS_AT_ONCE):
                await load.start_runs(min(STARTS_AT_ONCE, runs - first))
            await _wait_until_in_flight(urls.database_url, runs)
            waiting = await _idle_percent(worker, idle_seconds)
            waiting_memory = peak_memory_mb(worker)
            async with run_process(*_PARTICIPANT, environment=urls.environment):
                while load.started_at:
                    await load.wait_for_results(RESULT_SECONDS)
            memory = peak_memory_mb(worker)
            await check_runs(urls.database_url, load.finished, since=load.first_run_id)
    report.print(
        case="waiting-runs",
        runs=runs,
        idle_cpu_percent=round(idle, 2),
        waiting_cpu_percent=round(waiting, 2),
        idle_memory_mb=round(idle_memory),
        waiting_memory_mb=round(waiting_memory),
        answered_memory_mb=round(memory),
    )
    remark = f"{runs:,} runs"
    report.add("waiting-runs", "idle_cpu", figure_of([idle]))
    report.add("waiting-runs", "waiting_cpu", figure_of([waiting]), remark=remark)
    report.add("waiting-runs", "worker_memory", figure_of([memory]), remark=remark)


def peak_memory_mb(pid: int) -> float:
    """Return the highest resident memory that a process has had, in MB (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / _KB_PER_MB


async def _idle_percent(worker: int, seconds: float) -> float:
    """Return the processor time of an idle worker, in percent of one core."""
    await asyncio.sleep(SETTLE_SECONDS)
    before = cpu_seconds(worker)
    await asyncio.sleep(seconds)
    return (cpu_seconds(worker) - before) / seconds * 100


async def _wait_until_in_flight(database_url: str, runs: int) -> None:
    connection = await connect(database_url)
    try:
        for _ in range(MAX_POLLS):
            if await connection.fetchval(_IN_FLIGHT) == runs:
                return
            await asyncio.sleep(POLL_SECONDS)
        raise SystemExit(f"{runs} runs are not in flight after {MAX_POLLS * POLL_SECONDS:g} s.")
    finally:
        await connection.close()
