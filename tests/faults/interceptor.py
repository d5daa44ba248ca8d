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
from tests.faults import workload
from tests.kit.programs import sleep

INTERCEPTOR = "meddler"
MAX_KEPT_REPLIES = 300  # Old replies that are kept, to be said again.


class MessageInterceptor:
    """
    Hands every message on, `times` times, after `wait` seconds; 0 times loses it.

    `mischief(message)` says both; it is one of the functions below, and counts what it does.
    """

    def __init__(self, channel, policy):
        self.policy = policy
        self.affected_count = 0
        self.kept_replies: list[tuple[str, aio_pika.Message]] = []
        self._channel = channel
        self._tasks: asyncio.TaskGroup

    async def on_message(self, queue_of, incoming: AbstractIncomingMessage):
        queue, message = queue_of(incoming), _copy(incoming)
        waits = self.policy(self, queue, message)
        for seconds in waits:
            if seconds:
                self._tasks.create_task(self._publish_later(queue, message, seconds))
            else:
                await self.publish(queue, message)
        await incoming.ack()

    async def publish(self, queue, message):
        await self._channel.default_exchange.publish(message, routing_key=queue)

    async def _publish_later(self, queue, message, seconds):
        await sleep(seconds)
        await self.publish(queue, message)

    async def __aenter__(self):
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self._tasks.__aexit__(*error)


@asynccontextmanager
async def intercept_messages(url, policy, *, replies=True, commands=True):
    """Everything goes through the meddler for the time of the block; then straight again."""
    async with AsyncExitStack() as owned:
        connection = await owned.enter_async_context(await aio_pika.connect(url))
        channel = await connection.channel()
        await channel.set_qos(500)
        interceptor = await owned.enter_async_context(MessageInterceptor(channel, policy))
        routes = []
        if replies:
            routes.append((REPLIES, [REPLIES], lambda _: REPLIES))
        if commands:
            names = list(workload.COMMANDS)
            routes.append((COMMANDS, names, lambda incoming: _service_queue(incoming.routing_key)))
        for exchange, keys, queue_of in routes:
            await _redirect(owned, channel, interceptor, exchange, keys, queue_of)
        yield interceptor


async def _redirect(owned, channel, interceptor, exchange_name, keys, queue_of):
    exchange = await channel.get_exchange(exchange_name)
    interceptor_queue = await channel.declare_queue(
        f"{INTERCEPTOR}.{exchange_name}", auto_delete=False
    )
    target_queues = [await channel.get_queue(_target_queue(exchange_name, key)) for key in keys]
    # First the new way and then the old one away, and back in the same manner: nothing is lost,
    # something may come twice.
    for key, queue in zip(keys, target_queues, strict=True):
        await interceptor_queue.bind(exchange, key)
        await queue.unbind(exchange, key)

    async def restore():
        for key, queue in zip(keys, target_queues, strict=True):
            await queue.bind(exchange, key)
            await interceptor_queue.unbind(exchange, key)
        while (await interceptor_queue.declare()).message_count:
            await sleep(0.05)
        await interceptor_queue.cancel(tag)
        await interceptor_queue.delete(if_empty=False)

    async def on_message(incoming):
        await interceptor.on_message(queue_of, incoming)

    tag = await interceptor_queue.consume(on_message)
    owned.push_async_callback(restore)


def _target_queue(exchange, key):
    return REPLIES if exchange == REPLIES else _service_queue(key)


def _service_queue(command):
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


def sampled(random: Random, share: float, delays):
    """To a share of the messages `waits` happens; the others go straight on."""

    def policy(interceptor, queue, message):
        if random.random() >= share:
            return [0.0]
        interceptor.done += 1
        return delays(interceptor, queue, message)

    return policy
