"""
The cases `peers`, `barrier` and `two-workers`: throughput and latency against another side.

The latency of a run is the sum of its hops, which the case `peers` prints too: eight messages
through quorum queues, one after the other, four transactions with one row each, and what the engine
adds. The messages are measured with the pipeline, one run at a time; the transactions with one
connection that inserts a row of a kilobyte.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from benchmarks.baseline import MESSAGES, run_pipeline
from benchmarks.figures import Figure, Report
from benchmarks.load_generator import ROLLBACK, SUCCESS, Measurement, Workload
from benchmarks.peers.installation import INSTALL_COMMAND, restate_installation
from benchmarks.peers.restate import run_restate
from benchmarks.runs.sides import (
    EngineSide,
    Rounds,
    Segment,
    p50_ms,
    run_engine_side,
    runs_per_s,
    take_turns,
)
from benchmarks.servers import SharedServers, connect

TRANSACTIONS = 4
"""Of a run with three steps, one at a time: the start, and one for each reply."""

REPLY_QUEUES = 4
"""Queues of replies of two workers: twice as many as workers."""

_ROW_BYTES = 1000


class TransactionSide:
    """Commits one row in each transaction, as a side: a run is a transaction."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    async def measure(
        self, runs: int, *, max_in_flight: int, workload: Workload = SUCCESS
    ) -> Measurement:
        """Commit *runs* transactions, one after the other."""
        del max_in_flight, workload
        connection = await connect(self._database_url)
        latencies = []
        try:
            await connection.execute("CREATE TABLE IF NOT EXISTS hop (row text)")
            started_at = time.perf_counter()
            for _ in range(runs):
                sent_at = time.perf_counter()
                await connection.execute("INSERT INTO hop VALUES ($1)", "x" * _ROW_BYTES)
                latencies.append((time.perf_counter() - sent_at) * 1000)
            seconds = time.perf_counter() - started_at
        finally:
            await connection.close()
        return Measurement(runs=runs, seconds=seconds, latencies=latencies)


async def measure_peers(
    servers: SharedServers, report: Report, *, runs: int, rounds: int, with_restate: bool
) -> None:
    """Measure the success path, the rollback and the latency against the pipeline and Restate."""
    async with AsyncExitStack() as stack:
        urls = await stack.enter_async_context(servers.isolated_urls())
        engine = await stack.enter_async_context(_engine(servers))
        pipeline = await stack.enter_async_context(run_pipeline(urls))
        segments = [
            Segment(name="pipeline", side=pipeline, runs=runs * 2),
            Segment(name="success", side=engine, runs=runs),
            Segment(name="rollback", side=engine, runs=runs // 2, workload=ROLLBACK),
            Segment(name="latency", side=engine, runs=_one_by_one(runs), max_in_flight=1),
            Segment(name="messages", side=pipeline, runs=_one_by_one(runs), max_in_flight=1),
            Segment(
                name="transactions",
                side=TransactionSide(urls.database_url),
                runs=_one_by_one(runs),
            ),
        ]
        if with_restate and restate_installation().is_complete:
            segments += await _restate_segments(stack, runs)
        elif with_restate:
            report.print(case="peers", missing=f"Restate is not installed: {INSTALL_COMMAND}")
        measured = await take_turns(segments, rounds)
    measured.print_to(report, "peers")
    _report_peers(report, measured)


async def _restate_segments(stack: AsyncExitStack, runs: int) -> Sequence[Segment]:
    restate = await stack.enter_async_context(run_restate())
    return [
        Segment(name="restate-success", side=restate, runs=runs * 2),
        Segment(name="restate-rollback", side=restate, runs=runs, workload=ROLLBACK),
        Segment(name="restate-latency", side=restate, runs=_one_by_one(runs), max_in_flight=1),
    ]


def _one_by_one(runs: int) -> int:
    """Return how many runs are measured one at a time; each takes as long as ten at full load."""
    return max(20, runs // 20)


def _report_peers(report: Report, measured: Rounds) -> None:
    ratio = measured.ratio("success", "pipeline", runs_per_s)
    report.add("peers", "success_pipeline", ratio)
    for role, name in (("worker", "worker_cpu"), ("participants", "participant_cpu")):
        report.add("peers", name, relative_cpu(measured, role))
    if "restate-success" in measured.measurements:
        for name in ("success", "rollback"):
            ratio = measured.ratio(name, f"restate-{name}", runs_per_s)
            report.add("peers", f"{name}_restate", ratio)
        ratio = measured.ratio("latency", "restate-latency", p50_ms)
        report.add("peers", "latency_restate", ratio)
    message = measured.figure("messages", p50_ms).value / MESSAGES
    transaction = measured.figure("transactions", p50_ms).value
    latency = measured.figure("latency", p50_ms).value
    hops = message * MESSAGES + transaction * TRANSACTIONS
    report.print(
        case="peers",
        figure="hops",
        latency_p50_ms=round(latency, 2),
        message_ms=round(message, 2),
        messages_of_a_run_ms=round(message * MESSAGES, 2),
        transaction_ms=round(transaction, 2),
        transactions_of_a_run_ms=round(transaction * TRANSACTIONS, 2),
        sum_ms=round(hops, 2),
        engine_ms=round(latency - hops, 2),
    )


def relative_cpu(measured: Rounds, role: str) -> Figure:
    """Return the processor time of a role, relative to RabbitMQ's, on the success path."""
    return measured.figure(
        "success", lambda each: each.cpu_by_process[role] / each.cpu_by_process["rabbitmq"]
    )


async def measure_barrier(
    servers: SharedServers, report: Report, *, runs: int, rounds: int
) -> None:
    """Measure what the barrier in the participant's database costs."""
    async with _engine(servers) as without, _engine(servers, barrier=True) as barrier:
        segments = [
            Segment(name="success", side=without, runs=runs),
            Segment(name="success-barrier", side=barrier, runs=runs // 2),
            Segment(name="rollback-barrier", side=barrier, runs=runs // 4, workload=ROLLBACK),
            Segment(name="latency-barrier", side=barrier, runs=_one_by_one(runs), max_in_flight=1),
        ]
        measured = await take_turns(segments, rounds)
    measured.print_to(report, "barrier")
    report.add("barrier", "barrier", measured.ratio("success-barrier", "success", runs_per_s))


async def measure_two_workers(
    servers: SharedServers, report: Report, *, runs: int, rounds: int
) -> None:
    """Measure two workers against one, with one queue of replies and with several."""
    async with (
        _engine(servers) as one,
        _engine(servers, workers=2) as two,
        _engine(servers, workers=2, reply_queues=REPLY_QUEUES) as sharing,
    ):
        segments = [
            Segment(name="one-worker", side=one, runs=runs),
            Segment(name="two-workers", side=two, runs=runs),
            Segment(name="two-workers-sharing-queues", side=sharing, runs=runs),
        ]
        measured = await take_turns(segments, rounds)
    measured.print_to(report, "two-workers")
    ratio = measured.ratio("two-workers", "one-worker", runs_per_s)
    report.add("two-workers", "two_workers", ratio)
    ratio = measured.ratio("two-workers-sharing-queues", "two-workers", runs_per_s)
    report.print(case="two-workers", figure="sharing_queues", **ratio.rounded)


@asynccontextmanager
async def _engine(
    servers: SharedServers, *, workers: int = 1, barrier: bool = False, reply_queues: int = 1
) -> AsyncIterator[EngineSide]:
    environment = {"SAGA_ENGINE_REPLY_QUEUES": str(reply_queues)}
    async with (
        servers.isolated_urls() as urls,
        run_engine_side(
            urls, workers=workers, barrier=barrier, worker_environment=environment
        ) as side,
    ):
        yield side
