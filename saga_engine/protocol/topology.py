"""
The exchanges, queues and bindings as data, and the policy for the queues.

Declared is only what cannot be changed later (durable, quorum, exclusive); every limit is part of a
policy, which an operator can change while the queues exist (RabbitMQ guide "Policies"). No other
module builds the name of a queue or an exchange. `amqp.declare` declares a topology.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from zlib import crc32

from saga_engine.vocabulary import Json

COMMANDS = "saga.commands"
REPLIES = "saga.replies"
REQUESTS = "saga.requests"
EVENTS = "saga.events"
FEED = "saga.feed"
DEAD_LETTERS = "saga.dead-letters"

_REPLY_QUEUE_NAME = re.compile(rf"{re.escape(REPLIES)}(\.[1-9][0-9]*)?", re.ASCII)


class ExchangeKind(StrEnum):
    """How an exchange routes messages to queues (RabbitMQ guide "Exchanges")."""

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
    """
    A durable quorum queue, or an exclusive one, which is deleted with its connection.

    Of an ordered queue one consumer gets all messages, until it is gone, and a message that is
    returned has its old place.
    """

    name: str
    exclusive: bool = False
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """Routes messages of `exchange` whose routing key matches `binding_key` to `queue`."""

    queue: str
    exchange: str
    binding_key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """What a process needs on the broker."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()


_COMMANDS_EXCHANGE = Exchange(COMMANDS, ExchangeKind.TOPIC)
_REPLIES_EXCHANGE = Exchange(REPLIES, ExchangeKind.DIRECT)
_REQUESTS_EXCHANGE = Exchange(REQUESTS, ExchangeKind.TOPIC)
_EVENTS_EXCHANGE = Exchange(EVENTS, ExchangeKind.TOPIC)
_DEAD_LETTERS_EXCHANGE = Exchange(DEAD_LETTERS, ExchangeKind.FANOUT)


def reply_queue(number: int) -> str:
    """The queue of replies with a number from 0; the first has no number in its name."""
    return f"{REPLIES}.{number}" if number else REPLIES


def is_reply_queue(name: str) -> bool:
    """Whether this is the name of a queue of replies."""
    return _REPLY_QUEUE_NAME.fullmatch(name) is not None


def reply_queue_of(run_id: str, count: int) -> str:
    """The queue of replies to a run, of *count* ones; every version of the engine agrees on it."""
    return reply_queue(crc32(run_id.encode()) % count) if count > 1 else REPLIES


def engine_topology(reply_queues: int) -> Topology:
    """What the engine declares, with a number of queues of replies."""
    names = [reply_queue(number) for number in range(reply_queues)]
    return Topology(
        exchanges=(
            _COMMANDS_EXCHANGE,
            _REPLIES_EXCHANGE,
            _REQUESTS_EXCHANGE,
            _EVENTS_EXCHANGE,
            _DEAD_LETTERS_EXCHANGE,
        ),
        queues=(*map(Queue, names), Queue(REQUESTS), Queue(DEAD_LETTERS)),
        bindings=(
            *(Binding(name, REPLIES, name) for name in names),
            Binding(REQUESTS, REQUESTS, "#"),
            Binding(DEAD_LETTERS, DEAD_LETTERS, ""),
        ),
    )


ENGINE_TOPOLOGY = engine_topology(1)
"""The topology of an engine with one queue of replies."""

FEED_TOPOLOGY = Topology(exchanges=(Exchange(FEED, ExchangeKind.TOPIC),))
"""The topology of a process that publishes feeds. Consumers declare their queues and bindings."""


def shared_topology(reply_queues: int) -> Topology:
    """What `saga-engine topology` declares: all that no participant and no client owns."""
    engine = engine_topology(reply_queues)
    return replace(engine, exchanges=(*engine.exchanges, *FEED_TOPOLOGY.exchanges))


def participant_queue(name: str) -> str:
    """The queue of the participant called `name`."""
    return f"saga.participant.{name}"


def participant_topology(name: str, commands: Sequence[str]) -> Topology:
    """The topology of a participant: its queue, bound to each command it handles."""
    queue = participant_queue(name)
    return Topology(
        exchanges=(_COMMANDS_EXCHANGE, _REPLIES_EXCHANGE),
        queues=(Queue(queue),),
        bindings=tuple(Binding(queue, COMMANDS, command) for command in commands),
    )


def consumer_queue(name: str) -> str:
    """The queue of the consumer of events called `name`, unless it names another one."""
    return f"saga.consumer.{name}"


def consumer_topology(queue: str, keys: Sequence[str]) -> Topology:
    """The topology of a consumer of events: its queue, bound to the exchange of feeds."""
    return Topology(
        exchanges=FEED_TOPOLOGY.exchanges,
        queues=(Queue(queue, ordered=True),),
        bindings=tuple(Binding(queue, FEED, each) for each in keys),
    )


CLIENT_TOPOLOGY = Topology(exchanges=(_REQUESTS_EXCHANGE, _EVENTS_EXCHANGE))
"""The topology of a client's publishing connection."""


def client_topology(queue: str) -> Topology:
    """
    The topology of a client's consuming connection: an exclusive queue for its answers.

    Only the connection that declared it may use it, so no other connection may declare it.
    """
    return Topology(
        exchanges=(_REQUESTS_EXCHANGE, _EVENTS_EXCHANGE),
        queues=(Queue(queue, exclusive=True),),
        bindings=(Binding(queue, EVENTS, f"answer.{queue}"),),
    )


def queue_policy() -> dict[str, Json]:
    """
    The limits of the queues, for `rabbitmqctl set_policy`.

    A delivery limit of 20 is the default of RabbitMQ 4; earlier versions have none. Dead letters
    are delivered at least once, which requires `reject-publish` (guide "Quorum Queues", "Dead
    Lettering"). The maximum of 2 GiB for each queue keeps a stopped consumer from filling the disk;
    a publish to a full queue is `nacked`. The policy leaves the queue of dead letters out, because
    it must not dead-letter into itself.
    """
    return {
        "name": "saga-engine",
        "pattern": r"^saga\.(replies(\.[0-9]+)?|requests|participant\..+)$",
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
