"""
Sides of a measurement, and how they take turns.

All sides of a measurement run at once on the same servers, and are measured one after the other in
each round, and in the reverse order in the next one. So what else runs on the machine, and how fast
the machine is, affects them alike. Only ratios of one round are compared.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType
from typing import Protocol

from benchmarks.cpu_meter import CpuMeter
from benchmarks.figures import Figure, Report, figure_of, ratios
from benchmarks.load_generator import SUCCESS, LoadGenerator, Measurement, Workload
from benchmarks.processes import ServerUrls, run_engine
from benchmarks.runs.run_checks import check_runs

IN_FLIGHT = 400
"""Runs in flight at full load, as in the first figures."""

WARMUP_RUNS = 200


class Side(Protocol):
    """What is measured: this engine, the pipeline of bare messages, or a peer."""

    async def measure(
        self, runs: int, *, max_in_flight: int, workload: Workload = SUCCESS
    ) -> Measurement:
        """Perform *runs* runs, at most *max_in_flight* at a time."""


class EngineSide:
    """Workers and participants of this checkout, and the load for them."""

    def __init__(self, load: LoadGenerator, meter: CpuMeter) -> None:
        self._load = load
        self._meter = meter

    async def measure(
        self, runs: int, *, max_in_flight: int, workload: Workload = SUCCESS
    ) -> Measurement:
        """Perform *runs* runs, at most *max_in_flight* at a time."""
        self._meter.start()
        measured = await self._load.run(runs, max_in_flight=max_in_flight, workload=workload)
        self._meter.stop(measured)
        return measured


@asynccontextmanager
async def run_engine_side(
    urls: ServerUrls,
    *,
    workers: int = 1,
    barrier: bool = False,
    worker_environment: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[EngineSide]:
    """Run the engine, and warm it up; finally check every run in PostgreSQL."""
    async with AsyncExitStack() as stack:
        engine = run_engine(
            urls, workers=workers, barrier=barrier, worker_environment=worker_environment
        )
        pids = await stack.enter_async_context(engine)
        load = await stack.enter_async_context(LoadGenerator(urls))
        await load.run(WARMUP_RUNS, max_in_flight=50)
        yield EngineSide(load, CpuMeter(pids))
        await check_runs(urls.database_url, load.finished, since=load.first_run_id, barrier=barrier)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What one side does in each round."""

    name: str
    side: Side
    runs: int
    max_in_flight: int = IN_FLIGHT
    workload: Workload = SUCCESS


Value = Callable[[Measurement], float]


@dataclass(frozen=True, slots=True)
class Rounds:
    """The measurements of each segment, one for each round."""

    measurements: Mapping[str, Sequence[Measurement]]

    def ratio(self, name: str, reference: str, value: Value) -> Figure:
        """Return the median of the ratios of a value, round by round, and its interval."""
        return ratios(self._values(name, value), self._values(reference, value))

    def figure(self, name: str, value: Value) -> Figure:
        """Return the median of a value of one segment, and its interval."""
        return figure_of(self._values(name, value))

    def print_to(self, report: Report, case: str) -> None:
        """Print one line for each segment: medians of all rounds."""
        for name, measured in self.measurements.items():
            report.print(case=case, segment=name, rounds=len(measured), **_medians(measured))

    def _values(self, name: str, value: Value) -> Sequence[float]:
        return [value(each) for each in self.measurements[name]]


def runs_per_s(measured: Measurement) -> float:
    """Return the throughput of one measurement."""
    return measured.runs_per_s


def p50_ms(measured: Measurement) -> float:
    """Return the median latency of one measurement."""
    return measured.percentile(50)


def _medians(measured: Sequence[Measurement]) -> Mapping[str, object]:
    cpu_ms = {
        process: round(
            median(each.cpu_by_process[process] * 1000 / each.runs for each in measured), 3
        )
        for process in measured[0].cpu_by_process
    }
    return {
        "runs": measured[0].runs,
        "runs_per_s": round(median(map(runs_per_s, measured)), 1),
        "p50_ms": round(median(map(p50_ms, measured)), 2),
        "p99_ms": round(median(each.percentile(99) for each in measured), 2),
        "cpu_ms_per_run": cpu_ms,
        "noise": round(median(each.noise for each in measured), 2),
    }


async def take_turns(segments: Sequence[Segment], rounds: int) -> Rounds:
    """Measure each segment once in each round."""
    measurements: dict[str, list[Measurement]] = {each.name: [] for each in segments}
    for number in range(rounds):
        for each in segments if number % 2 == 0 else segments[::-1]:
            measured = await each.side.measure(
                each.runs, max_in_flight=each.max_in_flight, workload=each.workload
            )
            measurements[each.name].append(measured)
    return Rounds(measurements)
