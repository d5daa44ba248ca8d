"""What arrives at a worker, once it is known what it means: values, passed from intake to batch."""

from dataclasses import dataclass, field
from uuid import UUID

from saga_engine.broker.answer import Address
from saga_engine.broker.body import write_json
from saga_engine.broker.reply import OUTCOME, failure_json
from saga_engine.broker.request import StartRequest, encode_request
from saga_engine.broker.topology import REPLIES, REQUESTS
from saga_engine.broker.wire import Delivery, Message
from saga_engine.saga.trigger import Replied, Start, Trigger
from saga_engine.saga.vocabulary import Json


@dataclass(frozen=True, slots=True)
class Arrival:
    """
    Something that happened to a run.

    `saga` and `version` are those a Start asks for; a version of None means the newest.
    `message_id` and `correlation_id` go into the journal as its cause. `answer_to` is where the
    sender waits, `audit_id` the record of an operator's request that is to be settled. `delivery`
    is the message it came in, kept in case that message has to be set aside. `sender` is the
    RabbitMQ user who sent it, empty if it named none; None for what did not come over RabbitMQ.
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


@dataclass(frozen=True, slots=True)
class Question:
    """Somebody asks how a run stands."""

    run_id: str
    answer_to: Address


@dataclass(frozen=True, slots=True)
class Letter:
    """
    A message to set aside: why, in a word and a sentence, and whose it is if that is known.

    `answer_to` is where the sentence goes as well, when somebody waits for an answer.
    """

    delivery: Delivery
    reason: str
    sentence: str
    run_id: str | None = None
    answer_to: Address | None = None


@dataclass(slots=True)
class Intake:
    """What one batch works on. Everything in it is dealt with in one transaction."""

    arrivals: list[Arrival] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)


def as_delivered(arrival: Arrival) -> Delivery | None:
    """
    Write a start or a reply that waited in PostgreSQL as the message it stands for.

    So that it can be set aside and read like any other; None for any other arrival. What a reply
    answered is not in it: its correlation id is not kept while it waits.
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
            return None


def as_recorded(arrival: Arrival, kind: str, body: Json) -> Delivery:
    """What was recorded and cannot be read, as a message to nobody: so it can be set aside."""
    return _delivery(Message("", "", write_json(body), "", type=kind), "", arrival)


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
