"""
A command on the wire: how the engine writes it and how a participant reads it.

Rule: the body is the payload and nothing else; what the engine has to say stands in the headers.
The contract is docs/protocol.md, section "Commands".
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeGuard, TypeVar
from uuid import UUID, uuid4

from saga_engine.protocol.body import read_body, write_json
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.topology import COMMANDS, REPLIES
from saga_engine.protocol.unreadable import Reason, Unreadable
from saga_engine.settings import Settings
from saga_engine.vocabulary import Direction, Json

RUN_ID = "saga-run-id"
SAGA = "saga-name"
VERSION = "saga-version"
STEP = "saga-step"
ATTEMPT = "saga-attempt"
DIRECTION = "saga-direction"
DEADLINE = "saga-deadline"
IDEMPOTENCY_KEY = "idempotency-key"
TRACEPARENT = "traceparent"

_TRACEPARENT = re.compile(r"[0-9a-f]{2}(-[0-9a-f]+){3}(-.*)?", re.ASCII)
"""Of whatever version; what else comes is dropped (W3C Trace Context, 3.2.2 and 4.3)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Command:
    """
    One command of a run.

    `name` is what the participant is asked to do, `idempotency_key` the same for all its attempts,
    `deadline` when the engine stops waiting for this attempt. `payload` may be given as JSON bytes
    to spare encoding it again; it never shows in a log.
    """

    run_id: UUID
    saga: str
    version: int
    step: str
    direction: Direction
    attempt: int
    name: str
    idempotency_key: str
    payload: Json | bytes = field(repr=False)
    deadline: datetime


@dataclass(frozen=True, slots=True)
class ReceivedCommand:
    """A command as it arrived, and where its reply goes."""

    command: Command
    correlation_id: str
    reply_to: str
    message_id: str
    traceparent: str


def fresh_message_id() -> str:
    """Make an id that no other message has."""
    return uuid4().hex


def encode_command(
    command: Command,
    token: str,
    *,
    traceparent: str = "",
    message_id: str = "",
    sent_at: datetime | None = None,
) -> Message:
    """Write a command; `token` is what `token.mint` made for it, and comes back in the reply."""
    headers: dict[str, str | int | bool] = {
        RUN_ID: str(command.run_id),
        SAGA: command.saga,
        VERSION: command.version,
        STEP: command.step,
        ATTEMPT: command.attempt,
        DIRECTION: command.direction.value,
        DEADLINE: _iso(command.deadline),
        IDEMPOTENCY_KEY: command.idempotency_key,
    }
    if traceparent:
        headers[TRACEPARENT] = traceparent
    payload = command.payload
    return Message(
        exchange=COMMANDS,
        routing_key=command.name,
        body=payload if isinstance(payload, bytes) else write_json(payload),
        message_id=message_id or fresh_message_id(),
        type=command.name,
        correlation_id=token,
        reply_to=REPLIES,
        headers=headers,
        timestamp=sent_at,
    )


def decode_command(delivery: Delivery, settings: Settings) -> ReceivedCommand | Unreadable:
    """Read a command; its payload is any JSON."""
    payload = read_body(delivery, settings)
    if isinstance(payload, Unreadable):
        return payload
    try:
        command = _command(delivery, payload, _Headers(delivery.headers, settings.name_bytes))
    except _BadHeaderError as error:
        return Unreadable(Reason.BAD_COMMAND, str(error))
    problem = _unanswerable(delivery, settings.name_bytes)
    if problem:
        return Unreadable(Reason.BAD_COMMAND, problem)
    traceparent = delivery.headers.get(TRACEPARENT)
    return ReceivedCommand(
        command=command,
        correlation_id=delivery.correlation_id,
        reply_to=delivery.reply_to,
        message_id=delivery.message_id,
        traceparent=traceparent if _is_traceparent(traceparent) else "",
    )


class _BadHeaderError(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(f"The header {name} is missing, of another type or too long (name_bytes).")


class _Headers:
    """The headers of a command, their texts of `longest` bytes at the most."""

    def __init__(self, headers: Mapping[str, Json], longest: int) -> None:
        self._headers = headers
        self._longest = longest

    def text(self, name: str) -> str:
        value = self._headers.get(name)
        if not isinstance(value, str) or not 0 < len(value.encode()) <= self._longest:
            raise _BadHeaderError(name)
        return value

    def count(self, name: str) -> int:
        value = self._headers.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
            raise _BadHeaderError(name)
        return value

    def parsed(self, name: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(self.text(name))
        except (ValueError, OverflowError):
            raise _BadHeaderError(name) from None


def _command(delivery: Delivery, payload: Json, headers: _Headers) -> Command:
    return Command(
        run_id=headers.parsed(RUN_ID, UUID),
        saga=headers.text(SAGA),
        version=headers.count(VERSION),
        step=headers.text(STEP),
        direction=headers.parsed(DIRECTION, Direction),
        attempt=headers.count(ATTEMPT),
        name=delivery.type or delivery.routing_key,
        idempotency_key=headers.text(IDEMPOTENCY_KEY),
        payload=payload,
        deadline=headers.parsed(DEADLINE, _aware),
    )


def _unanswerable(delivery: Delivery, longest: int) -> str:
    """Why no reply to it could be sent; it must be known before anything is done."""
    if not delivery.correlation_id or not delivery.reply_to:
        return "It has no correlation_id or no reply_to to answer."
    # What was no UTF-8 has grown: each of its bytes stands as a character of three.
    for text in (delivery.correlation_id, delivery.reply_to, delivery.type):
        if len(text.encode()) > longest:
            return (
                f"Its correlation_id, reply_to or type has more than {longest} bytes (name_bytes)."
            )
    return ""


def _is_traceparent(value: Json) -> TypeGuard[str]:
    return isinstance(value, str) and _TRACEPARENT.fullmatch(value) is not None


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a moment needs its zone")
    return moment.astimezone(UTC)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
