"""
Somebody between the services and their queues: duplicates, reorders, delays and loses messages.

The queues of replies and commands are unbound from their exchanges and the meddler's own bound in
their place; what arrives there it puts into the right queue itself, when and as often as it likes.
The broker is the real one, and so is every message: only its way is another.
"""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from saga_engine.protocol.topology import COMMANDS, REPLIES, participant_queue
from tests.faults import shop
from tests.faults.processes import lasting

MINE = "meddler"
KEEP = 300  # Old replies that are kept, to be said again.


class Meddler:
    """
    Hands every message on, `times` times, after `wait` seconds; 0 times loses it.

    `mischief(message)` says both; it is one of the functions below, and counts what it does.
    """

    def __init__(self, channel, mischief):
        self.mischief = mischief
        self.done = 0
        self.old: list[tuple[str, aio_pika.Message]] = []
        self._channel = channel
        self._tasks: asyncio.TaskGroup

    async def on_message(self, queue_of, incoming: AbstractIncomingMessage):
        queue, message = queue_of(incoming), _copy(incoming)
        waits = self.mischief(self, queue, message)
        for seconds in waits:
            if seconds:
                self._tasks.create_task(self._later(queue, message, seconds))
            else:
                await self.put(queue, message)
        await incoming.ack()

    async def put(self, queue, message):
        await self._channel.default_exchange.publish(message, routing_key=queue)

    async def _later(self, queue, message, seconds):
        await lasting(seconds)
        await self.put(queue, message)

    async def __aenter__(self):
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self._tasks.__aexit__(*error)


@asynccontextmanager
async def meddling(url, mischief, *, replies=True, commands=True):
    """Everything goes through the meddler for the time of the block; then straight again."""
    async with AsyncExitStack() as owned:
        connection = await owned.enter_async_context(await aio_pika.connect(url))
        channel = await connection.channel()
        await channel.set_qos(500)
        meddler = await owned.enter_async_context(Meddler(channel, mischief))
        ways = []
        if replies:
            ways.append((REPLIES, [REPLIES], lambda _: REPLIES))
        if commands:
            names = list(shop.COMMANDS)
            ways.append((COMMANDS, names, lambda incoming: _service(incoming.routing_key)))
        for exchange, keys, queue_of in ways:
            await _divert(owned, channel, meddler, exchange, keys, queue_of)
        yield meddler


async def _divert(owned, channel, meddler, exchange_name, keys, queue_of):
    exchange = await channel.get_exchange(exchange_name)
    mine = await channel.declare_queue(f"{MINE}.{exchange_name}", auto_delete=False)
    theirs = [await channel.get_queue(_right_queue(exchange_name, key)) for key in keys]
    # First the new way and then the old one away, and back in the same manner: nothing is lost,
    # something may come twice.
    for key, queue in zip(keys, theirs, strict=True):
        await mine.bind(exchange, key)
        await queue.unbind(exchange, key)

    async def straight_again():
        for key, queue in zip(keys, theirs, strict=True):
            await queue.bind(exchange, key)
            await mine.unbind(exchange, key)
        while (await mine.declare()).message_count:
            await lasting(0.05)
        await mine.cancel(tag)
        await mine.delete(if_empty=False)

    async def take(incoming):
        await meddler.on_message(queue_of, incoming)

    tag = await mine.consume(take)
    owned.push_async_callback(straight_again)


def _right_queue(exchange, key):
    return REPLIES if exchange == REPLIES else _service(key)


def _service(command):
    return participant_queue(command.partition(".")[0])


def _copy(incoming):
    return aio_pika.Message(
        incoming.body,
        headers=incoming.headers,
        content_type=incoming.content_type,
        correlation_id=incoming.correlation_id,
        reply_to=incoming.reply_to,
        message_id=incoming.message_id,
        timestamp=incoming.timestamp,
        type=incoming.type,
        app_id=incoming.app_id,
        delivery_mode=2,
    )


def seldom(random: Random, share: float, waits):
    """To a share of the messages `waits` happens; the others go straight on."""

    def mischief(meddler, queue, message):
        if random.random() >= share:
            return [0.0]
        meddler.done += 1
        return waits(meddler, queue, message)

    return mischief
