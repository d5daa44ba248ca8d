"""
Declares a topology on the broker, or checks that it exists.

A user without the permission to declare can still start a process when everything exists already.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiormq.channel import Channel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from saga_engine.amqp.driver import (
    AmqpConnection,
    BrokerTimeout,
    close,
    open_channel,
    translate_errors,
)
from saga_engine.errors import BrokerUnavailable, TopologyMismatch
from saga_engine.protocol.topology import Binding, Exchange, Queue, Topology


async def declare_topology(connection: AmqpConnection, topology: Topology, seconds: float) -> None:
    """
    Declare what is missing and check what exists, each within `seconds`.

    Raises:
        TopologyMismatch: it exists with other arguments; RabbitMQ cannot change them.
        BrokerUnavailable: it is missing and may not be declared, or the connection was lost.
    """
    declarer = _Declarer(connection, seconds)
    for exchange in topology.exchanges:
        await declarer.declare_exchange(exchange)
    for queue in topology.queues:
        await declarer.declare_queue(queue)
    for binding in topology.bindings:
        await declarer.declare_binding(binding)
    await declarer.close_channel()


@dataclass(slots=True)
class _Declarer:
    """Declares on one channel; opens another one when a refused declaration has closed it."""

    connection: AmqpConnection
    seconds: float
    channel: Channel | None = None

    async def close_channel(self) -> None:
        if self.channel and not await close(self.channel, self.seconds):
            raise BrokerTimeout("The topology was declared, and then the broker did not respond.")

    async def declare_exchange(self, exchange: Exchange) -> None:
        async def send_declare(channel: Channel, *, passive: bool) -> None:
            await channel.exchange_declare(
                exchange.name,
                exchange_type=exchange.kind,
                durable=True,
                passive=passive,
                timeout=self.seconds,
            )

        await self._declare_or_check(f"exchange {exchange.name!r}", send_declare)

    async def declare_queue(self, queue: Queue) -> None:
        arguments: dict[str, Any] = {} if queue.exclusive else {"x-queue-type": "quorum"}

        async def send_declare(channel: Channel, *, passive: bool) -> None:
            await channel.queue_declare(
                queue.name,
                durable=not queue.exclusive,
                exclusive=queue.exclusive,
                arguments=arguments,
                passive=passive,
                timeout=self.seconds,
            )

        await self._declare_or_check(f"queue {queue.name!r}", send_declare)

    async def declare_binding(self, binding: Binding) -> None:
        async def send_bind(channel: Channel, *, passive: bool) -> None:
            # A binding cannot be queried; if it is missing, publishes are returned.
            if not passive:
                await channel.queue_bind(
                    binding.queue, binding.exchange, binding.binding_key, timeout=self.seconds
                )

        await self._declare_or_check(
            f"binding of queue {binding.queue!r} to {binding.exchange!r}", send_bind
        )

    async def _declare_or_check(
        self, description: str, operation: Callable[..., Awaitable[None]]
    ) -> None:
        try:
            await self._run_on_channel(description, operation, passive=False)
        except ChannelPreconditionFailed as error:
            raise TopologyMismatch(_mismatch_message(description, error)) from error
        except ChannelAccessRefused:
            await self._check_exists(description, operation)
        except (ChannelLockedResource, ChannelNotFoundEntity) as error:
            raise BrokerUnavailable(f"The {description} could not be declared: {error}.") from error

    async def _check_exists(
        self, description: str, operation: Callable[..., Awaitable[None]]
    ) -> None:
        try:
            await self._run_on_channel(description, operation, passive=True)
        except (ChannelNotFoundEntity, ChannelAccessRefused) as error:
            raise BrokerUnavailable(
                f"The {description} does not exist and this user may not declare it. Grant the"
                " permissions that docs/security.md lists, or declare it as another user"
                " (`saga-engine topology --declare`)."
            ) from error

    async def _run_on_channel(
        self, description: str, operation: Callable[..., Awaitable[None]], *, passive: bool
    ) -> None:
        channel, self.channel = self.channel, None
        channel = channel or await open_channel(self.connection, Channel, self.seconds)
        with translate_errors(f"The {description} could not be declared", allow_refusals=True):
            await operation(channel, passive=passive)
        self.channel = channel


def _mismatch_message(description: str, error: Exception) -> str:
    return (
        f"The {description} exists with other arguments than saga-engine's, and RabbitMQ cannot"
        f" change them. The broker says: {error}. Drain and delete it, then start again. Set limits"
        " in a policy instead (docs/protocol.md)."
    )
