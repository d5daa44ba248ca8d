"""
What a pending request means: a row of PostgreSQL becomes an arrival, or is not read and says why.

Services and operators write those rows, so each is read by itself and within the limits that hold
for messages, and nothing here raises for what is in one. What a row's columns say counts: its body
names neither its run nor its key.
"""

from collections.abc import Iterable
from dataclasses import replace

from saga_engine.decider.triggers import (
    Cancel,
    ResolveIncident,
    Trigger,
    WakeUp,
    deserialize_trigger,
)
from saga_engine.payload.limits import DEFAULT_LIMITS, BodyLimits
from saga_engine.protocol.answer import AnswerAddress
from saga_engine.protocol.body import read_json_within
from saga_engine.protocol.unreadable import UnreadableMessage, UnreadableReason
from saga_engine.settings import Settings
from saga_engine.store.pending_requests import PendingRequest, ReadLimits
from saga_engine.worker.work_item import UnreadableRequest, WorkBatch, WorkItem

ENCRYPTION_SIZE_FACTOR = 2
"""
How many times `max_body_bytes` a row of another role may have: it was written by our client, which
holds the input to `max_body_bytes` before it is sealed. Sealing makes four bytes of three.
"""

ACCEPTED_LIMITS = BodyLimits(2**30, 500, 10_000_000)
"""
What holds for a worker's own rows, whatever an operator has lowered since they were accepted:
PostgreSQL keeps no longer text, and the settings allow no more.
"""

LENIENT_FACTOR = 4
"""
How many times the limit of values, or its default if that is more, an accepted start of another
role may have, and how many times the length of its row with numbers written out: such a row is
read in a worker's memory, whoever wrote it.
"""

MAX_TEXT_BYTES = 2000
"""The highest that `max_request_text_bytes` can be; the columns are not longer."""

ENVELOPE_ALLOWANCE = 16
"""Values and levels that a recorded reply has around the body it came with, with room to spare."""


def body_limits(settings: Settings) -> ReadLimits:
    """How much of a row's body is fetched."""
    max_bytes = settings.max_body_bytes
    return ReadLimits(
        ACCEPTED_LIMITS.max_bytes,
        max_bytes * ENCRYPTION_SIZE_FACTOR,
        min(max_bytes, settings.max_dead_letter_body_bytes),
    )


def decode_requests(requests: Iterable[PendingRequest], settings: Settings) -> WorkBatch:
    """Read rows that were taken out."""
    work_batch = WorkBatch()
    for request in requests:
        decoded = decode_request(request, settings)
        if isinstance(decoded, UnreadableRequest):
            work_batch.unreadable.append(decoded)
        else:
            work_batch.work_items.append(decoded)
    return work_batch


def decode_request(request: PendingRequest, settings: Settings) -> WorkItem | UnreadableRequest:
    """Read one row."""
    if not request.body_complete:
        text = (
            f"The body has {request.body_size} bytes; max_body_bytes allows"
            f" {settings.max_body_bytes}."
        )
        return UnreadableRequest(_work_item(request, WakeUp()), UnreadableReason.TOO_LARGE, text)
    limits = ACCEPTED_LIMITS
    if request.role is not None:
        limits = BodyLimits(
            settings.max_body_bytes * ENCRYPTION_SIZE_FACTOR,
            settings.max_body_depth,
            settings.max_body_json_values,
        )
    decoded = _decode_within(request, limits, settings.max_request_text_bytes)
    if isinstance(decoded, WorkItem) or request.kind != "start" or request.fingerprint is None:
        return decoded
    # It was accepted: what does not fit a limit of now is for a person to decide.
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
            _work_item(request, WakeUp()), UnreadableReason.BAD_REQUEST, str(error)
        )
    if request.role is not None and (problem := _text_problem(request, trigger, text_bytes)):
        return UnreadableRequest(
            _work_item(request, trigger), UnreadableReason.BAD_REQUEST, problem
        )
    return _work_item(request, trigger)


def _text_problem(request: PendingRequest, trigger: Trigger, max_bytes: int) -> str:
    """Why a text of a request is not one of a message's; empty when it is."""
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
