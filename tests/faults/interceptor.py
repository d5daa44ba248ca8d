"""
Intercepts messages between exchanges and queues: duplicates, reorders, delays and loses them.

The queues of replies and commands are unbound from their exchanges, and queues of the interceptor
are bound instead. It publishes what it consumes to the original queue: late, repeatedly or never.
The broker and the messages are real; only their route is different.
"""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from saga_engine.protocol.topology import COMMANDS, REPLIES, participant_queue
from tests.faults import workload
from tests.kit.programs import sleep

INTERCEPTOR = "interceptor"
MAX_KEPT_REPLIES = 300  # Old replies that are kept and published again.


class MessageInterceptor:
    """
    Publishes each message after the delays that `policy` returns for it; an empty list loses it.

    A policy counts the messages that it affects in `affected_count`.
    """

    def __init__(self, channel, policy):
        self.policy = policy
        self.affected_count = 0
        self.kept_replies: list[tuple[str, aio_pika.Message]] = []
        self._channel = channel
        self._tasks: asyncio.TaskGroup

    async def on_message(self, queue_of, incoming: AbstractIncomingMessage):
        queue, message = queue_of(incoming), _copy(incoming)
        delays = self.policy(self, queue, message)
        for seconds in delays:
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
    """Route messages through an interceptor during the block, and restore the bindings."""
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


async def _redirect(owned, channel, interceptor: MessageInterceptor, exchange_name, keys, queue_of):
    exchange = await channel.get_exchange(exchange_name)
    interceptor_queue = await channel.declare_queue(
        f"{INTERCEPTOR}.{exchange_name}", auto_delete=False
    )
    target_queues = [await channel.get_queue(_target_queue(exchange_name, key)) for key in keys]
    # Bind the new queue before unbinding the old one, and in the reverse order at the end: no
    # message is lost, some may arrive twice.
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
    """A policy that applies `delays` to a share of the messages, and delays no others."""

    def policy(interceptor: MessageInterceptor, queue, message):
        if random.random() >= share:
            return [0.0]
        interceptor.affected_count += 1
        return delays(interceptor, queue, message)

    return policy
