"""
The exchanges, queues and bindings as data, the policy that goes with them, and declaring them.

Rule: only what can never be changed later is declared (durable, quorum, exclusive); every limit is
a policy, which an operator can change while the queues live (RabbitMQ guide "Policies"). Nothing
else in the package builds the name of a queue or an exchange.

A user without the permission to declare may start all the same when what is needed exists already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from saga_engine.vocabulary import Json

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
    binding_key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """What a process needs to find on the broker."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()


_COMMANDS_EXCHANGE = Exchange(COMMANDS, ExchangeKind.TOPIC)
_REPLIES_EXCHANGE = Exchange(REPLIES, ExchangeKind.DIRECT)
_REQUESTS_EXCHANGE = Exchange(REQUESTS, ExchangeKind.TOPIC)
_EVENTS_EXCHANGE = Exchange(EVENTS, ExchangeKind.TOPIC)
_DEAD_LETTERS_EXCHANGE = Exchange(DEAD_LETTERS, ExchangeKind.FANOUT)

ENGINE_TOPOLOGY = Topology(
    exchanges=(
        _COMMANDS_EXCHANGE,
        _REPLIES_EXCHANGE,
        _REQUESTS_EXCHANGE,
        _EVENTS_EXCHANGE,
        _DEAD_LETTERS_EXCHANGE,
    ),
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
        exchanges=(_COMMANDS_EXCHANGE, _REPLIES_EXCHANGE),
        queues=(Queue(queue),),
        bindings=tuple(Binding(queue, COMMANDS, command) for command in commands),
    )


CLIENT_TOPOLOGY = Topology(exchanges=(_REQUESTS_EXCHANGE, _EVENTS_EXCHANGE))
"""What a client's publishing link needs."""


def client_topology(queue: str) -> Topology:
    """
    What a client's consuming link needs: an exclusive queue for its answers.

    Only the connection that declared it may use it, so another link must not name it.
    """
    return Topology(
        exchanges=(_REQUESTS_EXCHANGE, _EVENTS_EXCHANGE),
        queues=(Queue(queue, exclusive=True),),
        bindings=(Binding(queue, EVENTS, f"answer.{queue}"),),
    )


def queue_policy() -> dict[str, Json]:
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
