"""
What a batch works on: the decoded form of deliveries and of pending requests.

`decode` and `decode_pending` make these values; `batch_transaction` processes them. They are plain
data: nothing here reads the store or the broker.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from uuid import UUID

from saga_engine.decider.triggers import MalformedReply, ReplyReceived, Start, Trigger, WakeUp
from saga_engine.protocol.answer import AnswerAddress
from saga_engine.protocol.body import write_json
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.reply import OUTCOME_HEADER
from saga_engine.protocol.request import StartRequest, encode_request
from saga_engine.protocol.topology import REPLIES, REQUESTS
from saga_engine.store.pending_requests import PendingRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """
    One trigger for one run, with what is known about its sender.

    Attributes:
        saga, version: of a start: the saga to start. No version means the newest one.
        message_id, correlation_id: stored in the journal as the cause of the events.
        answer_to: where the client waits for an answer; None: no client waits.
        audit_id: of an operator action: the audit record that is completed with the decision.
        delivery: the message it was decoded from, kept in case it must be dead-lettered.
        pending_request: the row of PostgreSQL it was decoded from.
        sender: the RabbitMQ user that sent it, empty if the message named none; None if it did not
            come over RabbitMQ.
        role: the PostgreSQL role that stored it; None if the engine stored it itself.
        fingerprint: of a start: the fingerprint of the definition it was accepted for; None: it
            has not been accepted yet.
        start_problem: of an accepted start: why its run cannot go on; empty if it can.
        outbox_id: of a command that no queue is bound for: its row of the outbox.
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
    outbox_id: int | None = None


@dataclass(frozen=True, slots=True)
class UnreadableRequest:
    """A pending request whose body cannot be read; `work_item` holds what its columns say."""

    work_item: WorkItem
    reason: DeadLetterReason
    detail: str


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """A client asks for the status of a run."""

    run_id: str
    answer_to: AnswerAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterItem:
    """
    A message to dead-letter.

    Attributes:
        reason, detail: why, as a code and as a sentence.
        run_id: the run it was for, if that is known.
        answer_to: where the client waits; it is answered with the reason.
        signed: whether its correlation id is a token of this engine. The digest of such a token is
            not stored; it is computed again when the message is redriven.
        role: the PostgreSQL role that stored it, if it was a pending request.
        quota_exempt: whether it is kept although its sender has reached its quota.
    """

    delivery: Delivery
    reason: DeadLetterReason
    detail: str
    run_id: str | None = None
    answer_to: AnswerAddress | None = None
    signed: bool = False
    role: str | None = None
    quota_exempt: bool = False


WorkBatchEntry: TypeAlias = WorkItem | StatusQuery | DeadLetterItem | UnreadableRequest


@dataclass(slots=True)
class WorkBatch:
    """What one transaction processes."""

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
    """Whether its message carries a valid token of this engine; `decode` has verified it."""
    return work_item.delivery is not None and isinstance(
        work_item.trigger, ReplyReceived | MalformedReply
    )


def is_timer(work_item: WorkItem) -> bool:
    """Whether it is a due timer, which is claimed in the row of its run and stored nowhere else."""
    return isinstance(work_item.trigger, WakeUp) and work_item.pending_request is None


def start_of(work_item: WorkItem) -> Start:
    """The trigger of a work item that is a start."""
    assert isinstance(work_item.trigger, Start), "the work item must be a start"
    return work_item.trigger


def is_accepted_start(work_item: WorkItem) -> bool:
    """Whether its sender was promised a run: a start that was stored in PostgreSQL."""
    was_accepted = work_item.fingerprint is not None or work_item.role is not None
    return (
        was_accepted
        and work_item.pending_request is not None
        and isinstance(work_item.trigger, Start)
    )


def as_delivery(work_item: WorkItem) -> Delivery | None:
    """
    Encode a pending request as a message, so that it can be dead-lettered and redriven.

    A start or a reply becomes the message that a client or a participant would send; any other
    request becomes the text of its row. Returns None for an item that has no row. The correlation
    id of a reply is not stored with the row, so it is missing here.
    """
    match work_item.trigger:
        case Start(run_id, key, start_input):
            request = StartRequest(
                run_id=UUID(run_id),
                saga=work_item.saga,
                input=start_input,
                version=work_item.version,
                key=key,
            )
            return _local_delivery(encode_request(request), REQUESTS, work_item)
        case ReplyReceived(outcome=outcome, body=body, failure=failure):
            reply_body = write_json(failure_json(failure) if failure else body)
            headers = {OUTCOME_HEADER: outcome.value}
            reply = Message(
                exchange=REPLIES,
                routing_key=REPLIES,
                body=reply_body,
                message_id=work_item.message_id,
                headers=headers,
            )
            return _local_delivery(reply, REPLIES, work_item)
        case _:
            return as_raw_delivery(work_item)


def as_raw_delivery(work_item: WorkItem) -> Delivery | None:
    """Wrap the row of a pending request in a message without decoding its body."""
    row = work_item.pending_request
    if row is None:
        return None
    message = Message(
        exchange="", routing_key="", body=row.body.encode(), message_id="", type=row.kind
    )
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
