"""The load: keeps a number of runs in flight and measures each from its start to its result."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from benchmarks.processes import ServerUrls
from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.identifiers import uuid7
from saga_engine.protocol.answer import Answer, decode_client_message
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.request import StartRequest, encode_request
from saga_engine.protocol.run_result import RunResult
from saga_engine.protocol.topology import ENGINE_TOPOLOGY, EVENTS, Binding, client_topology
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole, Json

QUEUE = "saga.benchmark"
RESULT_SECONDS = 180
"""How long no result may come; on a machine that is busy with other work a start takes a minute."""

RANDOM_BITS = 80
"""The bits of a UUIDv7 below its time."""


@dataclass(slots=True, kw_only=True)
class Measurement:
    """
    The figures of one measurement: latencies in milliseconds, the rest in seconds.

    `noise` is the share of the machine that other processes used meanwhile, from 0 to 1.
    """

    runs: int
    seconds: float
    latencies: list[float] = field(repr=False)
    cpu_by_process: Mapping[str, float] = field(default_factory=dict)
    noise: float = 0.0

    @property
    def runs_per_s(self) -> float:
        """Finished runs per second, from the first start to the last result."""
        return self.runs / self.seconds

    @property
    def cpu_s(self) -> float:
        """Processor time of all measured processes, in seconds."""
        return sum(self.cpu_by_process.values())

    def percentile(self, percent: int) -> float:
        """The latency that *percent* percent of the runs do not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """
    Which runs are started.

    Args:
        saga: its name; the input is an order of place-order.
        card: of the order; it decides how the run ends.
        expected_status: the status that each run must reach.
        expected_trail: the steps that ended, in order, as `benchmarks.runs.run_checks` reads them.
    """

    saga: str = "place-order"
    card: str = "ok"
    expected_status: str = "completed"
    expected_trail: tuple[str, ...]

    def order(self, run_id: UUID) -> dict[str, Json]:
        """Return the input of a run."""
        return {
            "order_id": str(run_id),
            "sku": "A1",
            "quantity": 1,
            "amount": "9.90",
            "card": self.card,
        }


SUCCESS = Workload(expected_trail=("reserve", "charge", "confirm"))
"""Three commands."""

ROLLBACK = Workload(
    card="declined-late",
    expected_status="compensated",
    expected_trail=("reserve", "charge", "confirm rejected", "undo charge", "undo reserve"),
)
"""Five commands: the third one is rejected, and two compensations follow."""


class LoadGenerator:
    """Starts runs of one workload at a time, and receives their results."""

    def __init__(self, urls: ServerUrls, workload: Workload = SUCCESS) -> None:
        self._urls = urls
        self._workload = workload
        self._settings = Settings(reply_prefetch=5000)
        self.started_at: dict[UUID, float] = {}
        self.finished: Counter[Workload] = Counter()
        self.first_run_id = UUID(int=uuid7().int >> RANDOM_BITS << RANDOM_BITS)
        """No run of this load has a smaller id."""

    async def __aenter__(self) -> Self:
        topology = client_topology(QUEUE)
        # Declares the engine's queues too, so that starts wait there until a worker is ready.
        self.publish_connection = SupervisedConnection(
            self._urls.broker_url,
            role=ConnectionRole.PUBLISH,
            settings=self._settings,
            topology=ENGINE_TOPOLOGY,
        )
        self._consume_connection = SupervisedConnection(
            self._urls.broker_url,
            role=ConnectionRole.CONSUME,
            settings=self._settings,
            topology=topology,
        )
        await self.publish_connection.__aenter__()
        await self._consume_connection.__aenter__()
        self._publisher = Publisher(self.publish_connection)
        self._consumer = Consumer(self._consume_connection, [QUEUE])
        await self._consumer.__aenter__()
        await self._consumer.bind(Binding(QUEUE, EVENTS, "finished.#"))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._consumer.__aexit__(None, None, None)
        await self._consume_connection.__aexit__(None, None, None)
        await self.publish_connection.__aexit__(None, None, None)

    async def run(
        self, runs: int, *, max_in_flight: int, workload: Workload | None = None
    ) -> Measurement:
        """Start *runs* runs, at most *max_in_flight* at a time; each must reach its status."""
        self._workload = workload or self._workload
        latencies: list[float] = []
        started_at = time.perf_counter()
        started = 0
        while len(latencies) < runs:
            free_slots = min(max_in_flight - len(self.started_at), runs - started)
            if free_slots > 0:
                await self.start_runs(free_slots)
                started += free_slots
            latencies += await self.wait_for_results(RESULT_SECONDS)
        return Measurement(runs=runs, seconds=time.perf_counter() - started_at, latencies=latencies)

    async def wait_for_results(self, seconds: float) -> list[float]:
        """Wait at most *seconds* for results; return the latencies in milliseconds."""
        async with asyncio.timeout(seconds):
            deliveries = await self._consumer.take(5000)
        latencies = self._latencies(
            decode_client_message(each, self._settings) for each in deliveries
        )
        await self._consumer.acknowledge(deliveries)
        return latencies

    async def start_runs(self, count: int) -> list[UUID]:
        """Start *count* runs; return their ids."""
        messages, run_ids = [], []
        for _ in range(count):
            run_id = uuid7()
            workload = self._workload
            request = StartRequest(run_id=run_id, saga=workload.saga, input=workload.order(run_id))
            messages.append(encode_request(request))
            self.started_at[run_id] = time.perf_counter()
            run_ids.append(run_id)
        await self.publish(messages)
        return run_ids

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish messages; all must be confirmed."""
        outcomes = await self._publisher.publish(messages)
        unconfirmed = [outcome for outcome in outcomes if outcome is not PublishOutcome.CONFIRMED]
        if unconfirmed:
            raise SystemExit(f"{len(unconfirmed)} messages were not confirmed: {set(unconfirmed)}")

    def _latencies(self, events: Iterable[Answer | RunResult | UnreadableMessage]) -> list[float]:
        now = time.perf_counter()
        latencies = []
        for event in events:
            if isinstance(event, RunResult) and event.run_id in self.started_at:
                if event.status != self._workload.expected_status:
                    raise SystemExit(f"A run finished {event.status}: {event.error}")
                latencies.append((now - self.started_at.pop(event.run_id)) * 1000)
                self.finished[self._workload] += 1
        return latencies
