"""Declaring a topology on the broker, or checking what exists there."""

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

from saga_engine.amqp.driver import Connection, Silent, close, open_channel, translated
from saga_engine.errors import BrokerUnavailable, TopologyMismatch
from saga_engine.protocol.topology import Binding, Exchange, Queue, Topology


async def declare(connection: Connection, topology: Topology, seconds: float) -> None:
    """
    Declare what is missing and check what exists, each in at most `seconds`.

    Raises:
        TopologyMismatch: it exists with other arguments; RabbitMQ cannot change them.
        BrokerUnavailable: forbidden and missing, or the connection was lost.
    """
    declaring = _Declaring(connection, seconds)
    for exchange in topology.exchanges:
        await declaring.exchange(exchange)
    for queue in topology.queues:
        await declaring.queue(queue)
    for binding in topology.bindings:
        await declaring.binding(binding)
    await declaring.end()


@dataclass(slots=True)
class _Declaring:
    """A refused declaration closes its channel, so each one after it has another."""

    connection: Connection
    seconds: float
    channel: Channel | None = None

    async def end(self) -> None:
        if self.channel and not await close(self.channel, self.seconds):
            raise Silent("The topology was declared, and then the broker was silent.")

    async def exchange(self, exchange: Exchange) -> None:
        async def act(channel: Channel, *, passive: bool) -> None:
            await channel.exchange_declare(
                exchange.name,
                exchange_type=exchange.kind,
                durable=True,
                passive=passive,
                timeout=self.seconds,
            )

        await self._declare(f"exchange {exchange.name!r}", act)

    async def queue(self, queue: Queue) -> None:
        arguments: dict[str, Any] = {} if queue.exclusive else {"x-queue-type": "quorum"}

        async def act(channel: Channel, *, passive: bool) -> None:
            await channel.queue_declare(
                queue.name,
                durable=not queue.exclusive,
                exclusive=queue.exclusive,
                arguments=arguments,
                passive=passive,
                timeout=self.seconds,
            )

        await self._declare(f"queue {queue.name!r}", act)

    async def binding(self, binding: Binding) -> None:
        async def act(channel: Channel, *, passive: bool) -> None:
            # Whether a binding exists cannot be asked; if it does not, publishes come back.
            if not passive:
                await channel.queue_bind(
                    binding.queue, binding.exchange, binding.key, timeout=self.seconds
                )

        await self._declare(f"binding of queue {binding.queue!r} to {binding.exchange!r}", act)

    async def _declare(self, what: str, act: Callable[..., Awaitable[None]]) -> None:
        try:
            await self._on_channel(what, act, passive=False)
        except ChannelPreconditionFailed as error:
            raise TopologyMismatch(_mismatch(what, error)) from error
        except ChannelAccessRefused:
            await self._look(what, act)
        except (ChannelLockedResource, ChannelNotFoundEntity) as error:
            raise BrokerUnavailable(f"The {what} could not be declared: {error}.") from error

    async def _look(self, what: str, act: Callable[..., Awaitable[None]]) -> None:
        try:
            await self._on_channel(what, act, passive=True)
        except (ChannelNotFoundEntity, ChannelAccessRefused) as error:
            raise BrokerUnavailable(
                f"The {what} does not exist and this user may not declare it. Grant the permissions"
                " that docs/security.md lists, or let a user declare it that may"
                " (`saga-engine topology --declare`), or start once with its URL."
            ) from error

    async def _on_channel(
        self, what: str, act: Callable[..., Awaitable[None]], *, passive: bool
    ) -> None:
        channel, self.channel = self.channel, None
        channel = channel or await open_channel(self.connection, Channel, self.seconds)
        with translated(f"The {what} could not be declared", verdicts=True):
            await act(channel, passive=passive)
        self.channel = channel


def _mismatch(what: str, error: Exception) -> str:
    return (
        f"The {what} exists with other arguments than saga-engine's, and RabbitMQ cannot change"
        f" them. The broker says: {error}. Drain and delete it, then start again; limits belong"
        " into a policy (docs/protocol.md)."
    )
