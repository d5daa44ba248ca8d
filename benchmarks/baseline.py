"""
The baseline: the messages of a three-step run over the same kind of queues, without the engine.

A start, three commands, three replies and a result go through quorum queues with confirms, between
two processes that only forward them in batches: no state, no database, no decisions.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from benchmarks.cpu_meter import CpuMeter
from benchmarks.load_generator import SUCCESS, Measurement, Workload
from benchmarks.processes import ServerUrls, run_process
from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.protocol.command import new_message_id
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.topology import Queue, Topology
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole

REQUESTS, COMMANDS, RESULTS = "bench.requests", "bench.commands", "bench.results"
TOPOLOGY = Topology(queues=(Queue(REQUESTS), Queue(COMMANDS), Queue(RESULTS)))
SETTINGS = Settings(reply_prefetch=5000)
STEPS = 3
MESSAGES = 8
"""Of each run: the start, three commands, three replies, and the result."""

WARMUP_RUNS = 200


class MessagePipeline:
    """
    Two processes that forward the messages of runs.

    Its `measure` is that of the other sides; the messages are the same for each workload.
    """

    def __init__(self, publisher: Publisher, consumer: Consumer, meter: CpuMeter) -> None:
        self._publisher = publisher
        self._consumer = consumer
        self._meter = meter

    async def measure(
        self, runs: int, *, max_in_flight: int, workload: Workload = SUCCESS
    ) -> Measurement:
        """Forward the messages of *runs* runs with three commands."""
        if workload is not SUCCESS:
            raise ValueError("The pipeline has three commands.")
        self._meter.start()
        measured = await _pass_runs(self._publisher, self._consumer, runs, max_in_flight)
        self._meter.stop(measured)
        return measured


@asynccontextmanager
async def run_pipeline(urls: ServerUrls) -> AsyncIterator[MessagePipeline]:
    """Start the two processes, and warm them up."""
    async with AsyncExitStack() as stack:
        pids = {"rabbitmq": [urls.pids[0]]}
        for role in ("orchestrator", "participant"):
            process = run_process(
                "-m", "benchmarks.baseline", role, environment={"BROKER": urls.broker_url}
            )
            pids[role] = [await stack.enter_async_context(process)]
        publisher, consumer = await _connect(stack, urls.broker_url, RESULTS)
        await _pass_runs(publisher, consumer, WARMUP_RUNS, WARMUP_RUNS)
        yield MessagePipeline(publisher, consumer, CpuMeter(pids))


async def _pass_runs(
    publisher: Publisher, consumer: Consumer, runs: int, max_in_flight: int
) -> Measurement:
    started_by_id: dict[str, float] = {}
    latencies: list[float] = []
    started_at, started_count = time.perf_counter(), 0
    while len(latencies) < runs:
        free_slots = min(max_in_flight - len(started_by_id), runs - started_count)
        if free_slots > 0:
            ids = [new_message_id() for _ in range(free_slots)]
            started_by_id |= dict.fromkeys(ids, time.perf_counter())
            started_count += free_slots
            await publisher.publish([_message(REQUESTS, run_id, 0) for run_id in ids])
        async with asyncio.timeout(60):
            deliveries = await consumer.take(5000)
        now = time.perf_counter()
        latencies += [(now - started_by_id.pop(each.correlation_id)) * 1000 for each in deliveries]
        await consumer.acknowledge(deliveries)
    return Measurement(runs=runs, seconds=time.perf_counter() - started_at, latencies=latencies)


async def _relay(role: str, url: str) -> None:
    """Consume, forward, acknowledge; the orchestrator counts the steps."""
    source = REQUESTS if role == "orchestrator" else COMMANDS
    async with AsyncExitStack() as stack:
        publisher, consumer = await _connect(stack, url, source)
        while True:
            deliveries = await consumer.take(500)
            await publisher.publish([_next_message(role, each) for each in deliveries])
            await consumer.acknowledge(deliveries)


def _next_message(role: str, delivery: Delivery) -> Message:
    step = int(delivery.type)
    if role == "participant":
        return _message(REQUESTS, delivery.correlation_id, step)
    return _message(RESULTS if step == STEPS else COMMANDS, delivery.correlation_id, step + 1)


def _message(queue: str, run_id: str, step: int) -> Message:
    body = b'{"order_id": "%s", "sku": "A1", "quantity": 1}' % run_id.encode()
    headers: dict[str, str | int | bool] = {f"saga-header-{n}": run_id for n in range(8)}
    return Message(
        exchange="",
        routing_key=queue,
        body=body,
        message_id=new_message_id(),
        type=str(step),
        correlation_id=run_id,
        reply_to=REQUESTS,
        headers=headers,
    )


async def _connect(stack: AsyncExitStack, url: str, queue: str) -> tuple[Publisher, Consumer]:
    connections = [
        await stack.enter_async_context(
            SupervisedConnection(url, role=role, settings=SETTINGS, topology=TOPOLOGY)
        )
        for role in (ConnectionRole.PUBLISH, ConnectionRole.CONSUME)
    ]
    consumer = await stack.enter_async_context(Consumer(connections[1], [queue]))
    return Publisher(connections[0]), consumer


if __name__ == "__main__":
    asyncio.run(_relay(sys.argv[1], os.environ["BROKER"]))
