"""The load: keeps a number of runs in flight and measures each from its start to its result."""

import asyncio
import time
from collections.abc import Iterable, Sequence
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


@dataclass(slots=True)
class Measurement:
    """The figures of one case: latencies in milliseconds, the rest in seconds."""

    runs: int
    seconds: float
    latencies: list[float] = field(repr=False)
    cpu_s: float = 0.0

    @property
    def runs_per_s(self) -> float:
        """Finished runs per second, from the first start to the last result."""
        return self.runs / self.seconds

    def percentile(self, percent: int) -> float:
        """The latency that *percent* percent of the runs do not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


class LoadGenerator:
    """Starts place-order runs with one kind of card, and receives their results."""

    def __init__(self, urls: ServerUrls, *, card: str, expected_status: str) -> None:
        self._urls = urls
        self._card = card
        self._expected_status = expected_status
        self._settings = Settings(reply_prefetch=5000)
        self.started_at: dict[UUID, float] = {}

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

    async def run(self, runs: int, *, max_in_flight: int) -> Measurement:
        """Start *runs* runs, at most *max_in_flight* at a time; each must reach its status."""
        latencies: list[float] = []
        started_at = time.perf_counter()
        started = 0
        while len(latencies) < runs:
            free_slots = min(max_in_flight - len(self.started_at), runs - started)
            if free_slots > 0:
                await self.start_runs(free_slots)
                started += free_slots
            latencies += await self.wait_for_results(60)
        return Measurement(runs, time.perf_counter() - started_at, latencies)

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
            order: dict[str, Json] = {"order_id": str(run_id), "sku": "A1", "quantity": 1}
            order |= {"amount": "9.90", "card": self._card}
            messages.append(
                encode_request(StartRequest(run_id=run_id, saga="place-order", input=order))
            )
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
                if event.status != self._expected_status:
                    raise SystemExit(f"A run finished {event.status}: {event.error}")
                latencies.append((now - self.started_at.pop(event.run_id)) * 1000)
        return latencies
