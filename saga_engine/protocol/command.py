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
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.topology import COMMANDS, REPLIES
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.vocabulary import Direction, Json

RUN_ID_HEADER = "saga-run-id"
SAGA_HEADER = "saga-name"
VERSION_HEADER = "saga-version"
STEP_HEADER = "saga-step"
ATTEMPT_HEADER = "saga-attempt"
DIRECTION_HEADER = "saga-direction"
DEADLINE_HEADER = "saga-deadline"
IDEMPOTENCY_KEY_HEADER = "idempotency-key"
TRACEPARENT_HEADER = "traceparent"

_VALID_TRACEPARENT = re.compile(r"[0-9a-f]{2}(-[0-9a-f]+){3}(-.*)?", re.ASCII)
"""Of whatever version; what else comes is dropped (W3C Trace Context, 3.2.2 and 4.3)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCommand:
    """A command as it arrived, and where its reply goes."""

    command: Command
    correlation_id: str
    reply_to: str
    message_id: str
    traceparent: str


def new_message_id() -> str:
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
        RUN_ID_HEADER: str(command.run_id),
        SAGA_HEADER: command.saga,
        VERSION_HEADER: command.version,
        STEP_HEADER: command.step,
        ATTEMPT_HEADER: command.attempt,
        DIRECTION_HEADER: command.direction.value,
        DEADLINE_HEADER: _format_utc(command.deadline),
        IDEMPOTENCY_KEY_HEADER: command.idempotency_key,
    }
    if traceparent:
        headers[TRACEPARENT_HEADER] = traceparent
    payload = command.payload
    return Message(
        exchange=COMMANDS,
        routing_key=command.name,
        body=payload if isinstance(payload, bytes) else write_json(payload),
        message_id=message_id or new_message_id(),
        type=command.name,
        correlation_id=token,
        reply_to=REPLIES,
        headers=headers,
        timestamp=sent_at,
    )


def decode_command(delivery: Delivery, settings: Settings) -> ReceivedCommand | UnreadableMessage:
    """Read a command; its payload is any JSON."""
    payload = read_body(delivery, settings)
    if isinstance(payload, UnreadableMessage):
        return payload
    try:
        command = _parse_command(
            delivery, payload, _HeaderReader(delivery.headers, settings.max_name_bytes)
        )
    except _BadHeaderError as error:
        return UnreadableMessage(DeadLetterReason.BAD_COMMAND, str(error))
    problem = _reply_problem(delivery, settings.max_name_bytes)
    if problem:
        return UnreadableMessage(DeadLetterReason.BAD_COMMAND, problem)
    traceparent = delivery.headers.get(TRACEPARENT_HEADER)
    return ReceivedCommand(
        command=command,
        correlation_id=delivery.correlation_id,
        reply_to=delivery.reply_to,
        message_id=delivery.message_id,
        traceparent=traceparent if _is_traceparent(traceparent) else "",
    )


class _BadHeaderError(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"The header {name} is missing, of another type or too long (max_name_bytes)."
        )


class _HeaderReader:
    """The headers of a command, their texts of `longest` bytes at the most."""

    def __init__(self, headers: Mapping[str, Json], max_bytes: int) -> None:
        self._headers = headers
        self._max_bytes = max_bytes

    def require_text(self, name: str) -> str:
        value = self._headers.get(name)
        if not isinstance(value, str) or not 0 < len(value.encode()) <= self._max_bytes:
            raise _BadHeaderError(name)
        return value

    def require_positive_int(self, name: str) -> int:
        value = self._headers.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
            raise _BadHeaderError(name)
        return value

    def parse_text(self, name: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(self.require_text(name))
        except (ValueError, OverflowError):
            raise _BadHeaderError(name) from None


def _parse_command(delivery: Delivery, payload: Json, headers: _HeaderReader) -> Command:
    return Command(
        run_id=headers.parse_text(RUN_ID_HEADER, UUID),
        saga=headers.require_text(SAGA_HEADER),
        version=headers.require_positive_int(VERSION_HEADER),
        step=headers.require_text(STEP_HEADER),
        direction=headers.parse_text(DIRECTION_HEADER, Direction),
        attempt=headers.require_positive_int(ATTEMPT_HEADER),
        name=delivery.type or delivery.routing_key,
        idempotency_key=headers.require_text(IDEMPOTENCY_KEY_HEADER),
        payload=payload,
        deadline=headers.parse_text(DEADLINE_HEADER, _parse_utc),
    )


def _reply_problem(delivery: Delivery, max_bytes: int) -> str:
    """Why no reply to it could be sent; it must be known before anything is done."""
    if not delivery.correlation_id or not delivery.reply_to:
        return "It has no correlation_id or no reply_to to answer."
    # What was no UTF-8 has grown: each of its bytes stands as a character of three.
    for text in (delivery.correlation_id, delivery.reply_to, delivery.type):
        if len(text.encode()) > max_bytes:
            return (
                f"Its correlation_id, reply_to or type has more than {max_bytes} bytes"
                " (max_name_bytes)."
            )
    return ""


def _is_traceparent(value: Json) -> TypeGuard[str]:
    return isinstance(value, str) and _VALID_TRACEPARENT.fullmatch(value) is not None


def _parse_utc(text: str) -> datetime:
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError("a moment needs its zone")
    return parsed.astimezone(UTC)


def _format_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
