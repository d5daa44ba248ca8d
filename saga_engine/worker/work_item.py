"""What arrives at a worker, once it is known what it means: values, passed from intake to batch."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from uuid import UUID

from saga_engine.decider.triggers import MalformedReply, ReplyReceived, Start, Trigger
from saga_engine.protocol.answer import AnswerAddress
from saga_engine.protocol.body import write_json
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.reply import OUTCOME_HEADER
from saga_engine.protocol.request import StartRequest, encode_request
from saga_engine.protocol.topology import REPLIES, REQUESTS
from saga_engine.store.pending_requests import PendingRequest


@dataclass(frozen=True, slots=True)
class WorkItem:
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
    answer_to: AnswerAddress | None = None
    audit_id: str | None = None
    delivery: Delivery | None = None
    sender: str | None = None
    pending_request: PendingRequest | None = None
    role: str | None = None
    fingerprint: str | None = None
    start_problem: str = ""


@dataclass(frozen=True, slots=True)
class UnreadableRequest:
    """What was recorded and cannot be read; `arrival` has what its columns say."""

    work_item: WorkItem
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """Somebody asks how a run stands."""

    run_id: str
    answer_to: AnswerAddress


@dataclass(frozen=True, slots=True)
class DeadLetterItem:
    """
    A message to set aside: why, in a word and a sentence, and whose it is if that is known.

    `answer_to` is where the sentence goes as well, when somebody waits for an answer. `signed`: its
    correlation id is one of this engine's, so that its digest can be left out and made again.
    `role` is the role of PostgreSQL that recorded it. `owed`: it is kept beyond its sender's quota.
    """

    delivery: Delivery
    reason: str
    detail: str
    run_id: str | None = None
    answer_to: AnswerAddress | None = None
    signed: bool = False
    role: str | None = None
    quota_exempt: bool = False


WorkBatchEntry: TypeAlias = WorkItem | StatusQuery | DeadLetterItem | UnreadableRequest


@dataclass(slots=True)
class WorkBatch:
    """What one batch works on. Everything in it is dealt with in one transaction."""

    work_items: list[WorkItem] = field(default_factory=list)
    status_queries: list[StatusQuery] = field(default_factory=list)
    dead_letters: list[DeadLetterItem] = field(default_factory=list)
    unreadable: list[UnreadableRequest] = field(default_factory=list)

    def __iter__(self) -> Iterator["WorkBatchEntry"]:
        yield from self.work_items
        yield from self.status_queries
        yield from self.dead_letters
        yield from self.unreadable


def has_signed_token(work_item: WorkItem) -> bool:
    """Whether the message it came in has a correlation id of this engine's: `intake` has looked."""
    return work_item.delivery is not None and isinstance(
        work_item.trigger, ReplyReceived | MalformedReply
    )


def is_accepted_start(work_item: WorkItem) -> bool:
    """Whether its sender counts on it to begin: it waited in PostgreSQL, pinned or by a role."""
    was_accepted = work_item.fingerprint is not None or work_item.role is not None
    return (
        was_accepted
        and work_item.pending_request is not None
        and isinstance(work_item.trigger, Start)
    )


def as_delivery(work_item: WorkItem) -> Delivery | None:
    """
    Write what waited in PostgreSQL as the message it stands for, so that it can be set aside.

    A start or a reply becomes a message as it is sent, anything else the text of its row. None for
    what was in no row. What a reply answered is not in it: its correlation id is not kept while it
    waits.
    """
    match work_item.trigger:
        case Start(run_id, key, start_input):
            request = StartRequest(
                UUID(run_id), work_item.saga, start_input, work_item.version, key
            )
            return _local_delivery(encode_request(request), REQUESTS, work_item)
        case ReplyReceived(outcome=outcome, body=body, failure=failure):
            reply_body = write_json(failure_json(failure) if failure else body)
            headers = {OUTCOME_HEADER: outcome.value}
            reply = Message(REPLIES, REPLIES, reply_body, work_item.message_id, headers=headers)
            return _local_delivery(reply, REPLIES, work_item)
        case _:
            return as_raw_delivery(work_item)


def as_raw_delivery(work_item: WorkItem) -> Delivery | None:
    """Write the row it came from as a message that goes nowhere; its body is not read for that."""
    row = work_item.pending_request
    if row is None:
        return None
    message = Message("", "", row.body.encode(), "", type=row.kind)
    return replace(_local_delivery(message, "", work_item), body_size=row.body_size)


def _local_delivery(message: Message, queue: str, work_item: WorkItem) -> Delivery:
    return Delivery(
        queue=queue,
        generation=0,
        delivery_tag=0,
        body=message.body,
        body_size=len(message.body),
        exchange=message.exchange,
        routing_key=message.routing_key,
        redelivered=False,
        message_id=message.message_id,
        correlation_id="",
        reply_to="",
        type=message.type,
        content_type="application/json",
        content_encoding="",
        user_id=work_item.sender or "",
        app_id="",
        timestamp=None,
        headers=dict(message.headers),
    )
