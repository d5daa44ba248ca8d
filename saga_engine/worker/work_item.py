"""What arrives at a worker, once it is known what it means: values, passed from intake to batch."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from uuid import UUID

from saga_engine.decider.triggers import Garbled, Replied, Start, Trigger
from saga_engine.protocol.answer import Address
from saga_engine.protocol.body import write_json
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.reply import OUTCOME
from saga_engine.protocol.request import StartRequest, encode_request
from saga_engine.protocol.topology import REPLIES, REQUESTS
from saga_engine.store.pending_requests import Inboxed


@dataclass(frozen=True, slots=True)
class Arrival:
    """
    Something that happened to a run.

    `saga` and `version` are those a Start asks for; a version of None means the newest.
    `fingerprint` is that of the definition a start was accepted for; without it, it has not been
    accepted yet.
    `message_id` and `correlation_id` go into the journal as its cause. `answer_to` is where the
    sender waits, `audit_id` the record of an operator's request that is to be settled. `delivery`
    is the message it came in, kept in case that message has to be set aside; `recorded` is the row
    of PostgreSQL it came from. `problem` is why a start that was accepted cannot go on.
    `sender` is the RabbitMQ user who sent it, empty if it named none;
    None for what did not come over RabbitMQ. `role` is the role of PostgreSQL that recorded it.
    """

    run_id: str
    trigger: Trigger
    saga: str = ""
    version: int | None = None
    message_id: str = ""
    correlation_id: str = ""
    answer_to: Address | None = None
    audit_id: str | None = None
    delivery: Delivery | None = None
    sender: str | None = None
    recorded: Inboxed | None = None
    role: str | None = None
    fingerprint: str | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Unread:
    """What was recorded and cannot be read; `arrival` has what its columns say."""

    arrival: Arrival
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Question:
    """Somebody asks how a run stands."""

    run_id: str
    answer_to: Address


@dataclass(frozen=True, slots=True)
class Letter:
    """
    A message to set aside: why, in a word and a sentence, and whose it is if that is known.

    `answer_to` is where the sentence goes as well, when somebody waits for an answer. `signed`: its
    correlation id is one of this engine's, so that its digest can be left out and made again.
    `role` is the role of PostgreSQL that recorded it. `owed`: it is kept beyond its sender's quota.
    """

    delivery: Delivery
    reason: str
    sentence: str
    run_id: str | None = None
    answer_to: Address | None = None
    signed: bool = False
    role: str | None = None
    owed: bool = False


Incoming: TypeAlias = Arrival | Question | Letter | Unread


@dataclass(slots=True)
class Intake:
    """What one batch works on. Everything in it is dealt with in one transaction."""

    arrivals: list[Arrival] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)

    def __iter__(self) -> Iterator["Incoming"]:
        yield from self.arrivals
        yield from self.questions
        yield from self.letters
        yield from self.unread


def is_signed(arrival: Arrival) -> bool:
    """Whether the message it came in has a correlation id of this engine's: `intake` has looked."""
    return arrival.delivery is not None and isinstance(arrival.trigger, Replied | Garbled)


def is_accepted_start(arrival: Arrival) -> bool:
    """Whether its sender counts on it to begin: it waited in PostgreSQL, pinned or by a role."""
    kept = arrival.fingerprint is not None or arrival.role is not None
    return kept and arrival.recorded is not None and isinstance(arrival.trigger, Start)


def as_delivered(arrival: Arrival) -> Delivery | None:
    """
    Write what waited in PostgreSQL as the message it stands for, so that it can be set aside.

    A start or a reply becomes a message as it is sent, anything else the text of its row. None for
    what was in no row. What a reply answered is not in it: its correlation id is not kept while it
    waits.
    """
    match arrival.trigger:
        case Start(run_id, key, given):
            request = StartRequest(UUID(run_id), arrival.saga, given, arrival.version, key)
            return _delivery(encode_request(request), REQUESTS, arrival)
        case Replied(outcome=outcome, body=body, failure=failure):
            said = write_json(failure_json(failure) if failure else body)
            headers = {OUTCOME: outcome.value}
            reply = Message(REPLIES, REPLIES, said, arrival.message_id, headers=headers)
            return _delivery(reply, REPLIES, arrival)
        case _:
            return as_recorded(arrival)


def as_recorded(arrival: Arrival) -> Delivery | None:
    """Write the row it came from as a message that goes nowhere; its body is not read for that."""
    row = arrival.recorded
    if row is None:
        return None
    message = Message("", "", row.body.encode(), "", type=row.kind)
    return replace(_delivery(message, "", arrival), size=row.size)


def _delivery(message: Message, queue: str, arrival: Arrival) -> Delivery:
    return Delivery(
        queue=queue,
        epoch=0,
        tag=0,
        body=message.body,
        size=len(message.body),
        exchange=message.exchange,
        routing_key=message.routing_key,
        redelivered=False,
        message_id=message.message_id,
        correlation_id="",
        reply_to="",
        type=message.type,
        content_type="application/json",
        content_encoding="",
        user_id=arrival.sender or "",
        app_id="",
        timestamp=None,
        headers=dict(message.headers),
    )
