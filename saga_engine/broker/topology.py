"""
The exchanges, queues and bindings as data, the policy that goes with them, and declaring them.

Rule: only what can never be changed later is declared (durable, quorum, exclusive); every limit is
a policy, which an operator can change while the queues live (RabbitMQ guide "Policies"). Nothing
else in the package builds the name of a queue or an exchange.

A user without the permission to declare may start all the same when what is needed exists already.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aiormq.channel import Channel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from saga_engine.broker.driver import Connection, Silent, close, open_channel, translated
from saga_engine.errors import BrokerUnavailable, TopologyMismatch
from saga_engine.saga.vocabulary import Json

COMMANDS = "saga.commands"
REPLIES = "saga.replies"
REQUESTS = "saga.requests"
EVENTS = "saga.events"
DEAD_LETTERS = "saga.dead-letters"


class ExchangeKind(StrEnum):
    """How an exchange chooses queues (RabbitMQ guide "Exchanges")."""

    TOPIC = "topic"
    DIRECT = "direct"
    FANOUT = "fanout"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: ExchangeKind


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue, or one that lives and dies with its connection."""

    name: str
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """What is published to `exchange` with a routing key that fits `key` goes to `queue`."""

    queue: str
    exchange: str
    key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """What a process needs to find on the broker."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()


_COMMANDS = Exchange(COMMANDS, ExchangeKind.TOPIC)
_REPLIES = Exchange(REPLIES, ExchangeKind.DIRECT)
_REQUESTS = Exchange(REQUESTS, ExchangeKind.TOPIC)
_EVENTS = Exchange(EVENTS, ExchangeKind.TOPIC)
_DEAD_LETTERS = Exchange(DEAD_LETTERS, ExchangeKind.FANOUT)

ENGINE = Topology(
    exchanges=(_COMMANDS, _REPLIES, _REQUESTS, _EVENTS, _DEAD_LETTERS),
    queues=(Queue(REPLIES), Queue(REQUESTS), Queue(DEAD_LETTERS)),
    bindings=(
        Binding(REPLIES, REPLIES, REPLIES),
        Binding(REQUESTS, REQUESTS, "#"),
        Binding(DEAD_LETTERS, DEAD_LETTERS, ""),
    ),
)


def participant_queue(name: str) -> str:
    """The queue of the participant called `name`."""
    return f"saga.participant.{name}"


def participant_topology(name: str, commands: Sequence[str]) -> Topology:
    """What a participant needs: its queue, bound to each command it performs."""
    queue = participant_queue(name)
    return Topology(
        exchanges=(_COMMANDS, _REPLIES),
        queues=(Queue(queue),),
        bindings=tuple(Binding(queue, COMMANDS, command) for command in commands),
    )


CLIENT = Topology(exchanges=(_REQUESTS, _EVENTS))
"""What a client's publishing link needs."""


def client_topology(queue: str) -> Topology:
    """
    What a client's consuming link needs: an exclusive queue for its answers.

    Only the connection that declared it may use it, so another link must not name it.
    """
    return Topology(
        exchanges=(_REQUESTS, _EVENTS),
        queues=(Queue(queue, exclusive=True),),
        bindings=(Binding(queue, EVENTS, f"answer.{queue}"),),
    )


def policy() -> dict[str, Json]:
    """
    The limits of the queues, for `rabbitmqctl set_policy`.

    delivery-limit 20: the default of RabbitMQ 4, absent before. Dead letters go at least once,
    which takes `reject-publish` (guide "Quorum Queues", "Dead Lettering"). 2 GiB a queue keeps a
    stopped consumer from filling the disk; publishers then see `nacked`. The queue of dead letters
    itself is left out: it must not dead-letter into itself.
    """
    return {
        "name": "saga-engine",
        "pattern": r"^saga\.(replies|requests|participant\..+)$",
        "apply-to": "queues",
        "priority": 10,
        "definition": {
            "delivery-limit": 20,
            "dead-letter-exchange": DEAD_LETTERS,
            "dead-letter-strategy": "at-least-once",
            "overflow": "reject-publish",
            "max-length-bytes": 2_147_483_648,
        },
    }


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
