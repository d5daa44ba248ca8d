"""
A consumer of the feed, as a program of another team has it, and the order in which it receives.

It knows only the messages. Repeated ones are expected; another id, another body, or an event before
an earlier one of its stream are not.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from zlib import crc32

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import AMQPError

from saga_engine.protocol.topology import FEED
from tests.kit.connections import raw_channel
from tests.kit.programs import sleep

QUEUE = "faults.feed"
PREFETCH, ACKNOWLEDGED_AT_ONCE = 500, 50  # The last ones are repeated after a reconnection.
RECONNECT_DELAY_S = 0.5
BROKER_ERRORS = (AMQPError, OSError, TimeoutError, RuntimeError)
"""aiormq raises a RuntimeError when a channel is used after its connection was lost."""


@dataclass(frozen=True)
class FeedMessage:
    """What must be the same in every delivery of an event."""

    stream: str
    event_id: str
    body_checksum: int


@dataclass
class ReceivedEvents:
    """The first delivery of each event, by position, and what was wrong with any."""

    messages: dict[int, FeedMessage] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    repetitions: int = 0
    _last_positions: dict[str, int] = field(default_factory=dict)
    _positions: dict[str, int] = field(default_factory=dict)

    def add(self, position: int, message: FeedMessage):
        known = self.messages.get(position)
        if known is not None:
            self.repetitions += 1
            if known != message:
                self.problems.append(f"E5: position {position} has changed: {known}, {message}")
            return
        last = self._last_positions.get(message.stream, 0)
        if position < last:
            self.problems.append(f"E5: {message.stream} at {position} came after that at {last}")
        other = self._positions.setdefault(message.event_id, position)
        if other != position:
            self.problems.append(f"E5: {message.event_id} is the id of {other} and {position}")
        self._last_positions[message.stream] = position
        self.messages[position] = message


class FeedConsumer:
    """Receives from a durable queue of its own; reconnects until its block ends."""

    def __init__(self, url):
        self.received = ReceivedEvents()
        self._url = url

    async def __aenter__(self):
        async with raw_channel(self._url) as channel:
            await _bind(channel)
        self._task = asyncio.create_task(self._run())  # noqa: TID251 - until the block ends
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self):
        while True:
            with suppress(*BROKER_ERRORS):
                async with raw_channel(self._url) as channel:
                    await _bind(channel)
                    await channel.basic_qos(prefetch_count=PREFETCH)
                    await channel.basic_consume(QUEUE, self._receive)
                    await asyncio.wait([channel.closing])
            await sleep(RECONNECT_DELAY_S)

    async def _receive(self, message: DeliveredMessage):
        headers = message.header.properties.headers or {}
        found = FeedMessage(
            str(headers["ce-subject"]), str(headers["ce-id"]), crc32(bytes(message.body))
        )
        self.received.add(int(str(headers["ce-sequence"])), found)
        tag = message.delivery_tag
        assert tag is not None
        if tag % ACKNOWLEDGED_AT_ONCE == 0:
            with suppress(*BROKER_ERRORS):  # then they are delivered again
                await message.channel.basic_ack(tag, multiple=True)


async def _bind(channel: AbstractChannel):
    await channel.exchange_declare(FEED, exchange_type="topic", durable=True)
    await channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.queue_bind(QUEUE, FEED, "#")
