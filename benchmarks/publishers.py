"""
Processor time to publish one message: `python -m benchmarks.publishers [--pairs 12]`.

The batch path (`amqp.publisher`) and aio-pika (`amqp.single_publisher`) publish the same messages
to the same queue of a private RabbitMQ, alternating. The time is this process's, in microseconds
for each confirmed message. docs/internals.md shows the figures.
"""

import argparse
import asyncio
import json
import statistics
import time
from uuid import uuid4

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.interfaces import MessagePublisher
from saga_engine.amqp.publisher import Publisher
from saga_engine.amqp.single_publisher import SinglePublisher
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.topology import COMMANDS, participant_topology
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole
from tests.kit.rabbitmq import RabbitMQServer

BATCH_SIZES = (1, 200)
MESSAGES_PER_ROUND = 2000
COMMAND = "benchmark.publish"
BODY = json.dumps({"order_id": "o-1", "sku": "A1", "quantity": 1, "card": "ok"}).encode()


def _message() -> Message:
    return Message(exchange=COMMANDS, routing_key=COMMAND, body=BODY, message_id=uuid4().hex)


async def _cpu_us_per_message(publisher: MessagePublisher, batch_size: int) -> float:
    batches = [
        [_message() for _ in range(batch_size)] for _ in range(MESSAGES_PER_ROUND // batch_size)
    ]
    before = time.process_time()
    for batch in batches:
        outcomes = await publisher.publish(batch)
        assert set(outcomes) == {PublishOutcome.CONFIRMED}
    return (time.process_time() - before) * 1e6 / MESSAGES_PER_ROUND


async def measure(pairs: int) -> None:
    """Print the median of each publisher and batch size, and of their ratio."""
    settings = Settings()
    topology = participant_topology("benchmark", [COMMAND])
    async with (
        RabbitMQServer() as rabbit,
        SupervisedConnection(
            rabbit.url, role=ConnectionRole.PUBLISH, settings=settings, topology=topology
        ) as connection,
    ):
        publishers: dict[str, MessagePublisher] = {
            "batch": Publisher(connection),
            "aio-pika": SinglePublisher(connection),
        }
        for size in BATCH_SIZES:
            figures: dict[str, list[float]] = {name: [] for name in publishers}
            for number in range(pairs + 1):
                for name, publisher in publishers.items():
                    figure = await _cpu_us_per_message(publisher, size)
                    if number:  # the first round warms up
                        figures[name].append(figure)
            ratios = [a / b for a, b in zip(figures["aio-pika"], figures["batch"], strict=True)]
            medians = {name: round(statistics.median(each)) for name, each in figures.items()}
            print(json.dumps({"batch_size": size, "cpu_us_per_message": medians})[:-1], end="")
            print(f', "ratio": {statistics.median(ratios):.1f}}}')


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    asyncio.run(measure(parser.parse_args().pairs))
