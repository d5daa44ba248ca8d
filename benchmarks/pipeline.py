"""
The limit: the messages of a three-step run over the same kind of queues, with no engine.

A start, three commands, three replies and an end, through quorum queues with confirms, between two
processes that do nothing but pass them on in batches. No state, no database, no decisions.
"""

import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack

from benchmarks.load import Measured
from benchmarks.processes import Urls, cpu_seconds, running
from saga_engine.amqp.connection import Link
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.protocol.command import fresh_message_id
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.topology import Queue, Topology
from saga_engine.settings import Settings

REQUESTS, COMMANDS, ENDS = "bench.requests", "bench.commands", "bench.ends"
TOPOLOGY = Topology(queues=(Queue(REQUESTS), Queue(COMMANDS), Queue(ENDS)))
SETTINGS = Settings(prefetch=5000)
STEPS = 3


async def bare_pipeline(urls: Urls, *, runs: int, at_once: int = 400) -> Measured:
    """Pass *runs* imitated runs through, *at_once* in flight."""
    async with AsyncExitStack() as stack:
        pids = [urls.pids[0]]
        for role in ("orchestrator", "participant"):
            process = running(
                "-m", "benchmarks.pipeline", role, environment={"BROKER": urls.broker}
            )
            pids.append(await stack.enter_async_context(process))
        publisher, consumer = await _connected(stack, urls.broker, ENDS)
        await _pass(publisher, consumer, min(200, runs), at_once)  # to warm up
        before = sum(map(cpu_seconds, pids))
        measured = await _pass(publisher, consumer, runs, at_once)
        measured.cpu_s = sum(map(cpu_seconds, pids)) - before
        return measured


async def _pass(publisher: Publisher, consumer: Consumer, runs: int, at_once: int) -> Measured:
    begun: dict[str, float] = {}
    latencies: list[float] = []
    begin, started = time.perf_counter(), 0
    while len(latencies) < runs:
        room = min(at_once - len(begun), runs - started)
        if room > 0:
            ids = [fresh_message_id() for _ in range(room)]
            begun |= dict.fromkeys(ids, time.perf_counter())
            started += room
            await publisher.publish([_message(REQUESTS, run_id, 0) for run_id in ids])
        async with asyncio.timeout(60):
            deliveries = await consumer.take(5000)
        now = time.perf_counter()
        latencies += [(now - begun.pop(each.correlation_id)) * 1000 for each in deliveries]
        await consumer.settle(deliveries)
    return Measured(runs, time.perf_counter() - begin, latencies)


async def _relay(role: str, url: str) -> None:
    """Take, pass on, acknowledge; the orchestrator counts the steps."""
    source = REQUESTS if role == "orchestrator" else COMMANDS
    async with AsyncExitStack() as stack:
        publisher, consumer = await _connected(stack, url, source)
        while True:
            deliveries = await consumer.take(500)
            await publisher.publish([_next(role, each) for each in deliveries])
            await consumer.settle(deliveries)


def _next(role: str, delivery: Delivery) -> Message:
    step = int(delivery.type)
    if role == "participant":
        return _message(REQUESTS, delivery.correlation_id, step)
    return _message(ENDS if step == STEPS else COMMANDS, delivery.correlation_id, step + 1)


def _message(queue: str, run_id: str, step: int) -> Message:
    body = b'{"order_id": "%s", "sku": "A1", "quantity": 1}' % run_id.encode()
    headers: dict[str, str | int | bool] = {f"saga-header-{n}": run_id for n in range(8)}
    return Message("", queue, body, fresh_message_id(), str(step), run_id, REQUESTS, headers)


async def _connected(stack: AsyncExitStack, url: str, queue: str) -> tuple[Publisher, Consumer]:
    links = [
        await stack.enter_async_context(Link(url, name=name, settings=SETTINGS, topology=TOPOLOGY))
        for name in ("pipeline publish", "pipeline consume")
    ]
    consumer = await stack.enter_async_context(Consumer(links[1], [queue]))
    return Publisher(links[0]), consumer


if __name__ == "__main__":
    asyncio.run(_relay(sys.argv[1], os.environ["BROKER"]))
