"""The load: keeps a number of runs in flight and measures each from its start to its end."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from benchmarks.processes import Urls
from saga_engine.amqp.connection import Link
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.identifiers import uuid7
from saga_engine.protocol.answer import Answer, Finished, decode_event
from saga_engine.protocol.message import Message, Published
from saga_engine.protocol.request import StartRequest, encode_request
from saga_engine.protocol.topology import ENGINE, EVENTS, Binding, client_topology
from saga_engine.protocol.unreadable import Unreadable
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json

QUEUE = "saga.benchmark"


@dataclass
class Measured:
    """The figures of one case; latencies in milliseconds, the rest in seconds."""

    runs: int
    seconds: float
    latencies: list[float] = field(repr=False)
    cpu_s: float = 0.0

    @property
    def runs_per_s(self) -> float:
        """Finished runs per second, from the first start to the last end."""
        return self.runs / self.seconds

    def percentile(self, percent: int) -> float:
        """The latency that so many percent of the runs do not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


class Load:
    """Starts place-order runs with one kind of card, and hears of their ends."""

    def __init__(self, urls: Urls, *, card: str, ends: str) -> None:
        self._urls = urls
        self._card = card
        self._ends = ends
        self._settings = Settings(prefetch=5000)
        self.begun: dict[UUID, float] = {}

    async def __aenter__(self) -> Self:
        topology = client_topology(QUEUE)
        # With the engine's queues declared, starts wait there until a worker is up.
        self.link = Link(self._urls.broker, name="load", settings=self._settings, topology=ENGINE)
        self._consume = Link(
            self._urls.broker, name="load ends", settings=self._settings, topology=topology
        )
        await self.link.__aenter__()
        await self._consume.__aenter__()
        self._publisher = Publisher(self.link)
        self._consumer = Consumer(self._consume, [QUEUE])
        await self._consumer.__aenter__()
        await self._consumer.bind(Binding(QUEUE, EVENTS, "finished.#"))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._consumer.__aexit__(None, None, None)
        await self._consume.__aexit__(None, None, None)
        await self.link.__aexit__(None, None, None)

    async def run(self, runs: int, *, at_once: int) -> Measured:
        """Start *runs* runs, *at_once* in flight, and wait until each has ended as it must."""
        latencies: list[float] = []
        begin = time.perf_counter()
        started = 0
        while len(latencies) < runs:
            room = min(at_once - len(self.begun), runs - started)
            if room > 0:
                await self.start(room)
                started += room
            latencies += await self.end(60)
        return Measured(runs, time.perf_counter() - begin, latencies)

    async def end(self, seconds: float) -> list[float]:
        """Wait for runs to end, so long; the latencies of those that did, in milliseconds."""
        async with asyncio.timeout(seconds):
            deliveries = await self._consumer.take(5000)
        latencies = self._ended(decode_event(each, self._settings) for each in deliveries)
        await self._consumer.settle(deliveries)
        return latencies

    async def start(self, count: int) -> list[UUID]:
        """Start so many runs; their ids."""
        messages, started = [], []
        for _ in range(count):
            run_id = uuid7()
            order: dict[str, Json] = {"order_id": str(run_id), "sku": "A1", "quantity": 1}
            order |= {"amount": "9.90", "card": self._card}
            messages.append(encode_request(StartRequest(run_id, "place-order", order)))
            self.begun[run_id] = time.perf_counter()
            started.append(run_id)
        await self.publish(messages)
        return started

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish messages, all of which must be confirmed."""
        outcomes = await self._publisher.publish(messages)
        lost = [outcome for outcome in outcomes if outcome is not Published.CONFIRMED]
        if lost:
            raise SystemExit(f"{len(lost)} messages were not confirmed: {set(lost)}")

    def _ended(self, events: Iterable[Answer | Finished | Unreadable]) -> list[float]:
        now = time.perf_counter()
        latencies = []
        for event in events:
            if isinstance(event, Finished) and event.run_id in self.begun:
                if event.status != self._ends:
                    raise SystemExit(f"A run ended {event.status}: {event.error}")
                latencies.append((now - self.begun.pop(event.run_id)) * 1000)
        return latencies
