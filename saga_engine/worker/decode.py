"""
Decodes deliveries: a message becomes a work item, a status query or a dead letter.

What happens to a message that cannot be decoded is decided here: it becomes a dead letter. A reply
with a valid token also becomes a MalformedReply, a trigger of its run (decider/replies.py).

This is the first step of every message. Nothing here raises because of what a sender sent, and
nothing here uses the store; a message is only read, within the limits of the settings. With a
payload codec, plain payloads are encrypted here, before they get anywhere else.
"""

from collections.abc import Iterable, Sequence

from saga_engine.decider.triggers import Cancel, MalformedReply, ReplyReceived, Start, Trigger
from saga_engine.payload.encryption import (
    NO_ENCRYPTION,
    PayloadEncryption,
    input_associated_data,
    reply_associated_data,
)
from saga_engine.protocol.answer import answer_address
from saga_engine.protocol.command import decode_command
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.reply import decode_reply, read_outcome
from saga_engine.protocol.request import CancelRequest, StartRequest, StatusRequest, decode_request
from saga_engine.protocol.token import redact_token, verify_with_any
from saga_engine.protocol.topology import DEAD_LETTERS, is_reply_queue, participant_queue
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.worker.timeslice import Timeslice
from saga_engine.worker.work_item import DeadLetterItem, StatusQuery, WorkBatch, WorkItem


async def decode_deliveries(
    deliveries: Iterable[Delivery],
    token_keys: Sequence[bytes],
    settings: Settings,
    encryption: PayloadEncryption = NO_ENCRYPTION,
) -> WorkBatch:
    """
    Decode deliveries one at a time, and yield to the event loop in between.

    Args:
        token_keys: the engine's keys; a correlation id is valid if one of them has signed it.
    """
    work_batch, timeslice = WorkBatch(), Timeslice()
    for delivery in deliveries:
        decode_delivery(work_batch, delivery, token_keys, settings, encryption)
        await timeslice.yield_if_over()
    return work_batch


def decode_delivery(
    work_batch: WorkBatch,
    delivery: Delivery,
    token_keys: Sequence[bytes],
    settings: Settings,
    encryption: PayloadEncryption = NO_ENCRYPTION,
) -> None:
    """Decode one delivery into *work_batch*."""
    try:
        _decode(work_batch, delivery, token_keys, settings, encryption)
    except Exception as error:  # noqa: BLE001 - decoding never raises, so this is a bug of the engine
        text = f"The engine could not read it: {type(error).__name__}."
        work_batch.dead_letters.append(
            DeadLetterItem(delivery=delivery, reason=DeadLetterReason.INTERNAL_ERROR, detail=text)
        )


def _decode(
    work_batch: WorkBatch,
    delivery: Delivery,
    token_keys: Sequence[bytes],
    settings: Settings,
    encryption: PayloadEncryption,
) -> None:
    if is_reply_queue(delivery.queue):
        _decode_reply(work_batch, delivery, token_keys, settings, encryption)
    elif delivery.queue == DEAD_LETTERS:
        work_batch.dead_letters.append(_broker_dead_letter(delivery, token_keys, settings))
    else:
        _decode_request(work_batch, delivery, settings, encryption)


def _decode_reply(
    work_batch: WorkBatch,
    delivery: Delivery,
    token_keys: Sequence[bytes],
    settings: Settings,
    encryption: PayloadEncryption,
) -> None:
    reply = decode_reply(delivery, token_keys, settings)
    ref = reply.command_ref
    if isinstance(reply, UnreadableMessage):
        dead_letter = DeadLetterItem(
            delivery=delivery,
            reason=reply.reason,
            detail=reply.explanation,
            run_id=ref.run_id if ref else None,
            signed=ref is not None,
        )
        work_batch.dead_letters.append(dead_letter)
        if ref is None:
            return
        associated_data = reply_associated_data(ref.run_id, ref.step, ref.direction)
        trigger: Trigger = MalformedReply(
            step=ref.step,
            direction=ref.direction,
            attempt=ref.attempt,
            problem=reply.explanation,
            outcome=read_outcome(delivery),
            raw_text=encryption.encrypt(
                _escaped_text(delivery.body[: settings.max_incident_reply_bytes]), associated_data
            ),
        )
    else:
        assert ref is not None  # a reply without a valid token is unreadable
        run_id = ref.run_id
        body = encryption.encrypt(
            reply.body, reply_associated_data(run_id, ref.step, ref.direction)
        )
        failure = reply.failure and encryption.encrypt_failure(reply.failure, run_id)
        trigger = ReplyReceived(
            step=ref.step,
            direction=ref.direction,
            attempt=ref.attempt,
            outcome=reply.outcome,
            body=body,
            failure=failure,
        )
    work_batch.work_items.append(_work_item(ref.run_id, trigger, delivery))


def _escaped_text(body: bytes) -> str:
    """Decode bytes to text that can be stored: NUL and invalid UTF-8 are escaped."""
    return body.decode(errors="backslashreplace").replace("\0", "\\x00")


def _decode_request(
    work_batch: WorkBatch, delivery: Delivery, settings: Settings, encryption: PayloadEncryption
) -> None:
    request = decode_request(delivery, settings)
    match request:
        case UnreadableMessage():
            dead_letter = DeadLetterItem(
                delivery=delivery,
                reason=request.reason,
                detail=request.explanation,
                answer_to=answer_address(delivery),
            )
            work_batch.dead_letters.append(dead_letter)
        case StartRequest():
            run_id = str(request.run_id)
            encrypted_input = encryption.encrypt(
                request.input, input_associated_data(request.saga, run_id)
            )
            start = Start(run_id, request.key, encrypted_input)
            work_item = _work_item(
                start.run_id, start, delivery, saga=request.saga, version=request.version
            )
            work_batch.work_items.append(work_item)
        case CancelRequest():
            cancel = Cancel(request.operator, request.reason)
            work_batch.work_items.append(_work_item(str(request.run_id), cancel, delivery))
        case StatusRequest():
            answer_to = answer_address(delivery)
            if answer_to is not None:  # without an address there is nothing to do
                work_batch.status_queries.append(StatusQuery(str(request.run_id), answer_to))


def _work_item(
    run_id: str,
    trigger: Trigger,
    delivery: Delivery,
    *,
    saga: str = "",
    version: int | None = None,
) -> WorkItem:
    return WorkItem(
        run_id=run_id,
        trigger=trigger,
        saga=saga,
        version=version,
        message_id=delivery.message_id,
        correlation_id=redact_token(delivery.correlation_id),
        answer_to=None if is_reply_queue(delivery.queue) else answer_address(delivery),
        delivery=delivery,
        sender=delivery.user_id,
    )


def _broker_dead_letter(
    delivery: Delivery, token_keys: Sequence[bytes], settings: Settings
) -> DeadLetterItem:
    """A message that the broker dead-lettered; its `x-death` header says where and why."""
    x_death = delivery.headers.get("x-death")
    first_death = x_death[0] if isinstance(x_death, list) and x_death else None
    queue, reason = ("", "")
    if isinstance(first_death, dict):
        queue, reason = str(first_death.get("queue", "")), str(first_death.get("reason", ""))
    text = f"The broker dead-lettered it in queue {queue[:100]!r}."
    if queue.startswith(participant_queue("")):
        # A participant cannot say why it rejected a message; mostly the worker finds the same.
        command = decode_command(delivery, settings)
        text += f" {command.explanation}" if isinstance(command, UnreadableMessage) else ""
    signed = verify_with_any(token_keys, delivery.correlation_id) is not None
    return DeadLetterItem(
        delivery=delivery,
        reason=_BROKER_REASONS.get(reason, DeadLetterReason.BROKER_OTHER),
        detail=text,
        signed=signed,
    )


_BROKER_REASONS = {
    "rejected": DeadLetterReason.BROKER_REJECTED,
    "expired": DeadLetterReason.BROKER_EXPIRED,
    "maxlen": DeadLetterReason.BROKER_MAXLEN,
    "delivery_limit": DeadLetterReason.BROKER_DELIVERY_LIMIT,
}
"""Why RabbitMQ dead-letters a message (guide "Dead Letter Exchanges"), as its `x-death` says it."""
