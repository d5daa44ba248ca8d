"""
Processor time to receive one message: `python -m benchmarks.receiving [--pairs 12]`.

A queue of a private RabbitMQ is filled and read over two connections in turn: `stream` reads
messages with `amqp.frame_stream`, `aiormq` leaves all frames to aiormq. Both make the same
deliveries. The time is this process's, in microseconds for each message from the socket to its
Delivery. docs/internals.md shows the figures.
"""

import argparse
import asyncio
import json
import statistics
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from unittest.mock import patch
from uuid import UUID, uuid4

from aiormq.connection import TCPTransportFactory

from saga_engine.amqp import driver
from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.delivery_channel import DeliveryChannel
from saga_engine.amqp.publisher import Publisher
from saga_engine.protocol.command import ReceivedCommand, encode_command
from saga_engine.protocol.message import Delivery, Message, PublishOutcome
from saga_engine.protocol.reply import encode_reply
from saga_engine.protocol.token import CommandRef, sign_token
from saga_engine.protocol.topology import (
    COMMANDS,
    Topology,
    participant_queue,
    participant_topology,
)
from saga_engine.settings import Settings
from saga_engine.vocabulary import Command, ConnectionRole, Direction, Outcome
from tests.kit.rabbitmq import RabbitMQServer

MESSAGES_PER_ROUND = 2000
NAME = "benchmark.receive"
QUEUE = participant_queue("benchmark")
SECONDS = 30
"""The most seconds that the broker may take for a response."""


class AiormqStreams(TCPTransportFactory):
    """The sockets of aiormq, without a FrameStream."""

    last_progress_at = float("inf")


def _command() -> tuple[Command, str]:
    ref = CommandRef(str(UUID(int=1)), "charge", Direction.ACTION, 1)
    command = Command(
        run_id=ref.run_id,
        saga="place-order",
        version=1,
        step=ref.step,
        direction=ref.direction,
        attempt=ref.attempt,
        name=NAME,
        idempotency_key=f"{ref.run_id}.charge.action",
        payload={"order_id": "o-1", "sku": "A1", "quantity": 1, "card": "ok"},
        deadline=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return command, sign_token(b"k" * 32, ref)


def _messages(kind: str) -> list[Message]:
    command, token = _command()
    received = ReceivedCommand(
        command=command, correlation_id=token, reply_to="", message_id="m-1", traceparent=""
    )
    message = (
        encode_command(command, token)
        if kind == "command"
        else encode_reply(received, Outcome.SUCCEEDED, {"charge_id": "c-1"})
    )
    fields = {name: getattr(message, name) for name in message.__slots__}
    fields |= {"exchange": COMMANDS, "routing_key": NAME}
    return [Message(**fields | {"message_id": uuid4().hex}) for _ in range(MESSAGES_PER_ROUND)]


async def _cpu_us_per_message(connection: driver.AmqpConnection, settings: Settings) -> float:
    received: list[Delivery] = []
    complete = asyncio.Event()

    def receive(delivery: Delivery) -> None:
        received.append(delivery)
        if len(received) == MESSAGES_PER_ROUND:
            complete.set()

    channel = await driver.open_channel(connection, DeliveryChannel, SECONDS)
    channel.configure(1, receive, settings)
    await channel.basic_qos(prefetch_count=MESSAGES_PER_ROUND)
    before = time.process_time()
    await channel.consume_queue(QUEUE, SECONDS)
    await complete.wait()
    seconds = time.process_time() - before
    await channel.acknowledge(each.delivery_tag for each in received)
    await driver.close(channel, SECONDS)
    return seconds * 1e6 / MESSAGES_PER_ROUND


async def _open(
    stack: AsyncExitStack, url: str, role: ConnectionRole, topology: Topology
) -> SupervisedConnection:
    connection = SupervisedConnection(url, role=role, settings=Settings(), topology=topology)
    return await stack.enter_async_context(connection)


async def measure(pairs: int) -> None:
    """Print the median of each way to read, and of their ratio, for each kind of message."""
    topology = participant_topology("benchmark", [NAME])
    async with AsyncExitStack() as stack:
        rabbit = await stack.enter_async_context(RabbitMQServer())
        sender = await _open(stack, rabbit.url, ConnectionRole.PUBLISH, topology)
        publisher = Publisher(sender)
        stream = await _open(stack, rabbit.url, ConnectionRole.CONSUME, topology)
        with patch.object(driver, "FrameStreamFactory", lambda _: AiormqStreams()):
            aiormq = await _open(stack, rabbit.url, ConnectionRole.CONSUME, topology)
        connections = {
            "stream": await stream.wait_connected(),
            "aiormq": await aiormq.wait_connected(),
        }
        for kind in ("reply", "command"):
            figures: dict[str, list[float]] = {name: [] for name in connections}
            for number in range(pairs + 1):
                for name, connection in connections.items():
                    outcomes = await publisher.publish(_messages(kind))
                    assert set(outcomes) == {PublishOutcome.CONFIRMED}
                    figure = await _cpu_us_per_message(connection, stream.settings)
                    if number:  # the first round warms up
                        figures[name].append(figure)
            ratios = [a / b for a, b in zip(figures["aiormq"], figures["stream"], strict=True)]
            medians = {name: round(statistics.median(each)) for name, each in figures.items()}
            ratio = round(statistics.median(ratios), 1)
            print(json.dumps({"message": kind, "cpu_us_per_message": medians, "ratio": ratio}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    asyncio.run(measure(parser.parse_args().pairs))
