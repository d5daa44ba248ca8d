"""
The cases of runs by name; each prints JSON lines, and the figures with targets as a table at last.

Each case has private servers of its own parts, see `benchmarks.servers`. A figure is the median of
rounds, with an interval that contains it with a probability of 95 %.
"""

from collections.abc import Collection
from dataclasses import dataclass

from benchmarks import hostile
from benchmarks.cli_commands import measure_commands
from benchmarks.figures import Report
from benchmarks.processes import start_servers
from benchmarks.runs.kept_runs import measure_kept_runs
from benchmarks.runs.statements import measure_statements
from benchmarks.runs.targets import table
from benchmarks.runs.throughput import measure_barrier, measure_peers, measure_two_workers
from benchmarks.runs.waiting_runs import measure_waiting_runs
from benchmarks.servers import SharedServers, start_shared_servers

NAMES = (
    "peers",
    "barrier",
    "two-workers",
    "statements",
    "cli",
    "waiting-runs",
    "kept-runs",
    "hostile",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """
    How much is measured.

    Args:
        runs: of the engine in each round of a throughput case; other sides have more or fewer.
        rounds: how often each side has its turn.
        kept_runs: finished runs of the case `kept-runs`.
        waiting_runs: runs in flight of the case `waiting-runs`.
    """

    runs: int
    rounds: int
    kept_runs: int
    waiting_runs: int


async def measure(names: Collection[str], sizes: Sizes) -> None:
    """Measure the cases of some names; print their lines and the table."""
    report = Report(_print_now)
    if set(NAMES[:-1]) & set(names):
        async with start_shared_servers() as servers:
            await _measure_throughput(servers, report, names, sizes)
            await _measure_database(servers, report, names, sizes)
    if "hostile" in names:
        async with start_servers() as urls:
            report.print(**await hostile.measure(urls, "objects-and-texts", 1000))
    if report.figures:
        _print_now(f"\n{table(report.figures, report.remarks)}")


async def _measure_throughput(
    servers: SharedServers, report: Report, names: Collection[str], sizes: Sizes
) -> None:
    runs, rounds = sizes.runs, sizes.rounds
    if "peers" in names:
        await measure_peers(servers, report, runs=runs, rounds=rounds, with_restate=True)
    if "barrier" in names:
        await measure_barrier(servers, report, runs=runs, rounds=rounds)
    if "two-workers" in names:
        await measure_two_workers(servers, report, runs=runs, rounds=rounds)


async def _measure_database(
    servers: SharedServers, report: Report, names: Collection[str], sizes: Sizes
) -> None:
    runs, rounds = sizes.runs, sizes.rounds
    if "statements" in names:
        await measure_statements(servers, report, runs=runs, rounds=rounds)
    if "cli" in names:
        async with servers.isolated_urls() as urls:
            await measure_commands(urls, report)
    if "waiting-runs" in names:
        await measure_waiting_runs(servers, report, runs=sizes.waiting_runs)
    if "kept-runs" in names:
        await measure_kept_runs(
            servers, report, runs=runs, rounds=rounds, kept_runs=sizes.kept_runs
        )


def _print_now(line: str) -> None:
    print(line, flush=True)
