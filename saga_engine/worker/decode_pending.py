"""
Decodes pending requests: a row of PostgreSQL becomes a work item, or is unreadable with a reason.

Services and operators write those rows, so each is decoded on its own and within the limits that
apply to messages, and nothing here raises because of what is in one. The columns of a row decide
which run and which key it is for; its body names neither.
"""

from collections.abc import Iterable
from dataclasses import replace

from saga_engine.decider.triggers import Cancel, ResolveIncident, Trigger, WakeUp
from saga_engine.payload.limits import DEFAULT_LIMITS, BodyLimits
from saga_engine.protocol.answer import AnswerAddress
from saga_engine.protocol.body import read_json_within
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.store.pending_requests import PendingRequest, ReadLimits, RequestKind
from saga_engine.store.trigger_data import deserialize_trigger
from saga_engine.worker.work_item import UnreadableRequest, WorkBatch, WorkItem

ENCRYPTION_SIZE_FACTOR = 2
"""
How many times `max_body_bytes` a row of another role may have. The engine's client wrote it and
limits the input to `max_body_bytes` before it is encrypted; encryption makes four bytes of three.
"""

ACCEPTED_LIMITS = BodyLimits(2**30, 500, 10_000_000)
"""
The limits of rows that a worker wrote itself. They are the highest that the settings allow, so that
an accepted request stays readable after an operator has lowered a limit.
"""

LENIENT_FACTOR = 4
"""
By how much an accepted start of another role may exceed the limits: this many times the limit of
JSON values (or its default, if that is higher), and this many times the length of its row once its
numbers are written out. There is a limit because the row is decoded in the worker's memory.
"""

MAX_TEXT_BYTES = 2000
"""The highest value of `max_request_text_bytes`; the columns hold no more."""

ENVELOPE_ALLOWANCE = 16
"""JSON values and levels that a stored reply adds around the body of its message, rounded up."""


def body_limits(settings: Settings) -> ReadLimits:
    """How many bytes of a row's body are read."""
    max_bytes = settings.max_body_bytes
    return ReadLimits(
        ACCEPTED_LIMITS.max_bytes,
        max_bytes * ENCRYPTION_SIZE_FACTOR,
        min(max_bytes, settings.max_dead_letter_body_bytes),
    )


def decode_requests(requests: Iterable[PendingRequest], settings: Settings) -> WorkBatch:
    """Decode rows that were taken from the table."""
    work_batch = WorkBatch()
    for request in requests:
        decoded = decode_request(request, settings)
        if isinstance(decoded, UnreadableRequest):
            work_batch.unreadable.append(decoded)
        else:
            work_batch.work_items.append(decoded)
    return work_batch


def decode_request(request: PendingRequest, settings: Settings) -> WorkItem | UnreadableRequest:
    """Decode one row."""
    if not request.body_complete:
        text = (
            f"The body has {request.body_size} bytes; max_body_bytes allows"
            f" {settings.max_body_bytes}."
        )
        return UnreadableRequest(_work_item(request, WakeUp()), DeadLetterReason.TOO_LARGE, text)
    limits = ACCEPTED_LIMITS
    if request.role is not None:
        limits = BodyLimits(
            settings.max_body_bytes * ENCRYPTION_SIZE_FACTOR,
            settings.max_body_depth,
            settings.max_body_json_values,
        )
    decoded = _decode_within(request, limits, settings.max_request_text_bytes)
    if (
        isinstance(decoded, WorkItem)
        or request.kind != RequestKind.START
        or request.fingerprint is None
    ):
        return decoded
    # It was accepted: if it exceeds a limit that was lowered since, a person decides.
    accepted = _decode_within(request, _lenient_limits(request, settings), MAX_TEXT_BYTES)
    return (
        accepted
        if isinstance(accepted, UnreadableRequest)
        else replace(accepted, start_problem=decoded.detail)
    )


def _lenient_limits(request: PendingRequest, settings: Settings) -> BodyLimits:
    if request.role is None:
        return ACCEPTED_LIMITS
    max_values = max(settings.max_body_json_values, DEFAULT_LIMITS.max_values)
    return BodyLimits(
        request.body_size * LENIENT_FACTOR, ACCEPTED_LIMITS.max_depth, max_values * LENIENT_FACTOR
    )


def _decode_within(
    request: PendingRequest, limits: BodyLimits, text_bytes: int
) -> WorkItem | UnreadableRequest:
    envelope_limits = BodyLimits(
        limits.max_bytes,
        limits.max_depth + ENVELOPE_ALLOWANCE,
        limits.max_values + ENVELOPE_ALLOWANCE,
    )
    body = read_json_within(request.body.encode(), envelope_limits)
    if isinstance(body, UnreadableMessage):
        return UnreadableRequest(_work_item(request, WakeUp()), body.reason, body.explanation)
    try:
        trigger = deserialize_trigger(request.kind, body, run_id=request.run_id, key=request.key)
    except ValueError as error:
        return UnreadableRequest(
            _work_item(request, WakeUp()), DeadLetterReason.BAD_REQUEST, str(error)
        )
    if request.role is not None and (problem := _text_problem(request, trigger, text_bytes)):
        return UnreadableRequest(
            _work_item(request, trigger), DeadLetterReason.BAD_REQUEST, problem
        )
    return _work_item(request, trigger)


def _text_problem(request: PendingRequest, trigger: Trigger, max_bytes: int) -> str:
    """Why a text field of a request would be invalid in a message; empty if it is valid."""
    texts = {"saga": request.saga, "key": request.key}
    if isinstance(trigger, Cancel | ResolveIncident):
        texts |= {"by": trigger.operator, "reason": trigger.reason}
    for name, value in texts.items():
        if value is not None and not 0 < len(value.encode()) <= max_bytes:
            return (
                f"The field {name} must be a text of 1 to {max_bytes} bytes"
                " (max_request_text_bytes)."
            )
    return ""


def _work_item(request: PendingRequest, trigger: Trigger) -> WorkItem:
    answer_to = None
    if request.reply_to is not None and request.correlation_id is not None:
        answer_to = AnswerAddress(request.reply_to, request.correlation_id)
    return WorkItem(
        run_id=request.run_id,
        trigger=trigger,
        saga=request.saga or "",
        version=request.version,
        answer_to=answer_to,
        audit_id=request.audit_id,
        sender=request.sender,
        pending_request=request,
        fingerprint=request.fingerprint,
        role=request.role,
    )
