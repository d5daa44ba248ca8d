"""
What a pending request means: a row of PostgreSQL becomes an arrival, or is not read and says why.

Services and operators write those rows, so each is read by itself and within the limits that hold
for messages, and nothing here raises for what is in one. What a row's columns say counts: its body
names neither its run nor its key.
"""

from collections.abc import Iterable
from dataclasses import replace

from saga_engine.decider.triggers import Cancel, Resolve, Trigger, Woken, recorded_trigger
from saga_engine.payload.limits import LIMITS, Limits
from saga_engine.protocol.answer import Address
from saga_engine.protocol.body import bounded_json
from saga_engine.protocol.unreadable import Reason, Unreadable
from saga_engine.settings import Settings
from saga_engine.store.pending_requests import Inboxed, Lengths
from saga_engine.worker.work_item import Arrival, Intake, Unread

OTHERS = 2
"""
How many times `body_bytes` a row of another role may have: it was written by our client, which
holds the input to `body_bytes` before it is sealed. Sealing makes four bytes of three.
"""

ACCEPTED = Limits(2**30, 500, 10_000_000)
"""
What holds for a worker's own rows, whatever an operator has lowered since they were accepted:
PostgreSQL keeps no longer text, and the settings allow no more.
"""

LENIENT = 4
"""
How many times the limit of values, or its default if that is more, an accepted start of another
role may have, and how many times the length of its row with numbers written out: such a row is
read in a worker's memory, whoever wrote it.
"""

TEXT_BYTES_MAX = 2000
"""The highest that `text_bytes` can be; the columns are not longer."""

AROUND = 16
"""Values and levels that a recorded reply has around the body it came with, with room to spare."""


def lengths(settings: Settings) -> Lengths:
    """How much of a row's body is fetched."""
    longest = settings.body_bytes
    return Lengths(ACCEPTED.size, longest * OTHERS, min(longest, settings.dead_letter_bytes))


def read(items: Iterable[Inboxed], settings: Settings) -> Intake:
    """Read rows that were taken out."""
    intake = Intake()
    for item in items:
        found = read_one(item, settings)
        if isinstance(found, Unread):
            intake.unread.append(found)
        else:
            intake.arrivals.append(found)
    return intake


def read_one(item: Inboxed, settings: Settings) -> Arrival | Unread:
    """Read one row."""
    if not item.whole:
        text = f"The body has {item.size} bytes; body_bytes allows {settings.body_bytes}."
        return Unread(_arrival(item, Woken()), Reason.TOO_LARGE, text)
    limits = ACCEPTED
    if item.role is not None:
        limits = Limits(settings.body_bytes * OTHERS, settings.body_depth, settings.body_values)
    found = _within(item, limits, settings.text_bytes)
    if isinstance(found, Arrival) or item.kind != "start" or item.fingerprint is None:
        return found
    # It was accepted: what does not fit a limit of now is for a person to decide.
    accepted = _within(item, _lenient(item, settings), TEXT_BYTES_MAX)
    return accepted if isinstance(accepted, Unread) else replace(accepted, problem=found.sentence)


def _lenient(item: Inboxed, settings: Settings) -> Limits:
    if item.role is None:
        return ACCEPTED
    values = max(settings.body_values, LIMITS.values)
    return Limits(item.size * LENIENT, ACCEPTED.depth, values * LENIENT)


def _within(item: Inboxed, limits: Limits, text_bytes: int) -> Arrival | Unread:
    bounds = Limits(limits.size, limits.depth + AROUND, limits.values + AROUND)
    body = bounded_json(item.body.encode(), bounds)
    if isinstance(body, Unreadable):
        return Unread(_arrival(item, Woken()), body.reason, body.sentence)
    try:
        trigger = recorded_trigger(item.kind, body, run_id=item.run_id, key=item.key)
    except ValueError as error:
        return Unread(_arrival(item, Woken()), Reason.BAD_REQUEST, str(error))
    if item.role is not None and (problem := _too_long(item, trigger, text_bytes)):
        return Unread(_arrival(item, trigger), Reason.BAD_REQUEST, problem)
    return _arrival(item, trigger)


def _too_long(item: Inboxed, trigger: Trigger, longest: int) -> str:
    """Why a text of a request is not one of a message's; empty when it is."""
    texts = {"saga": item.saga, "key": item.key}
    if isinstance(trigger, Cancel | Resolve):
        texts |= {"by": trigger.by, "reason": trigger.reason}
    for name, value in texts.items():
        if value is not None and not 0 < len(value.encode()) <= longest:
            return f"The field {name} must be a text of 1 to {longest} bytes (text_bytes)."
    return ""


def _arrival(item: Inboxed, trigger: Trigger) -> Arrival:
    answer_to = None
    if item.reply_to is not None and item.correlation_id is not None:
        answer_to = Address(item.reply_to, item.correlation_id)
    return Arrival(
        item.run_id,
        trigger,
        item.saga or "",
        item.version,
        answer_to=answer_to,
        audit_id=item.audit_id,
        sender=item.sender,
        recorded=item,
        fingerprint=item.fingerprint,
        role=item.role,
    )
