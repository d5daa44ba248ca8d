"""
Declares a topology on the broker, or checks that it exists.

A user without the permission to declare can still start a process when everything exists already.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiormq.channel import Channel
from aiormq.exceptions import ChannelPreconditionFailed

from saga_engine.amqp.declaring_channel import DeclaringChannel
from saga_engine.amqp.driver import AmqpConnection
from saga_engine.errors import TopologyMismatch
from saga_engine.protocol.topology import Binding, Exchange, Queue, Topology

NO_DELIVERY_LIMIT = 2**31 - 1
"""How often a message may be returned: more often than happens."""


async def declare_topology(connection: AmqpConnection, topology: Topology, seconds: float) -> None:
    """
    Declare what is missing and check what exists, each within `seconds`.

    Raises:
        TopologyMismatch: it exists with other arguments; RabbitMQ cannot change them.
        BrokerUnavailable: it is missing and may not be declared, or the connection was lost.
    """
    channel = DeclaringChannel(
        connection, seconds, "declare it as another user (`saga-engine topology --declare`)"
    )
    for exchange in topology.exchanges:
        await _declare_exchange(channel, exchange)
    for queue in topology.queues:
        await _declare_queue(channel, queue)
    for binding in topology.bindings:
        await _declare_binding(channel, binding)
    await channel.close()


async def _declare_exchange(declaring: DeclaringChannel, exchange: Exchange) -> None:
    async def send_declare(channel: Channel, *, passive: bool) -> None:
        await channel.exchange_declare(
            exchange.name,
            exchange_type=exchange.kind,
            durable=True,
            passive=passive,
            timeout=declaring.seconds,
        )

    await _declare_or_check(declaring, f"exchange {exchange.name!r}", send_declare)


async def _declare_queue(declaring: DeclaringChannel, queue: Queue) -> None:
    arguments: dict[str, Any] = {} if queue.exclusive else {"x-queue-type": "quorum"}
    if queue.ordered:
        # Without a limit RabbitMQ 3.10 puts a message that is returned at the end.
        arguments |= {"x-single-active-consumer": True, "x-delivery-limit": NO_DELIVERY_LIMIT}

    async def send_declare(channel: Channel, *, passive: bool) -> None:
        await channel.queue_declare(
            queue.name,
            durable=not queue.exclusive,
            exclusive=queue.exclusive,
            arguments=arguments,
            passive=passive,
            timeout=declaring.seconds,
        )

    await _declare_or_check(declaring, f"queue {queue.name!r}", send_declare)


async def _declare_binding(declaring: DeclaringChannel, binding: Binding) -> None:
    async def send_bind(channel: Channel, *, passive: bool) -> None:
        # A binding cannot be queried; if it is missing, publishes are returned.
        if not passive:
            await channel.queue_bind(
                binding.queue, binding.exchange, binding.binding_key, timeout=declaring.seconds
            )

    description = f"binding of queue {binding.queue!r} to {binding.exchange!r}"
    await _declare_or_check(declaring, description, send_bind)


async def _declare_or_check(
    declaring: DeclaringChannel, description: str, operation: Callable[..., Awaitable[None]]
) -> None:
    try:
        await declaring.declare_or_check(description, operation)
    except ChannelPreconditionFailed as error:
        raise TopologyMismatch(_mismatch_message(description, error)) from error


def _mismatch_message(description: str, error: Exception) -> str:
    return (
        f"The {description} exists with other arguments than saga-engine's, and RabbitMQ cannot"
        f" change them. The broker says: {error}. Drain and delete it, then start again. Set limits"
        " in a policy instead (docs/protocol.md)."
    )
