"""
A command on the wire: written by the engine, read by a participant.

The body is the payload and nothing else; everything the engine adds is in the headers. The
idempotency key is carried here; decider/commands.py makes it, and participant/barrier.py uses it.
The contract is docs/protocol.md, section "Commands".
"""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeGuard, TypeVar
from uuid import UUID

from saga_engine.protocol.body import read_body, write_json
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.topology import COMMANDS, REPLIES
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.vocabulary import Command, Direction, Json

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
"""Of any version; an invalid value is dropped (W3C Trace Context, 3.2.2 and 4.3)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCommand:
    """A command that arrived, and where its reply goes."""

    command: Command
    correlation_id: str
    reply_to: str
    message_id: str
    traceparent: str


def new_message_id() -> str:
    """Make a unique message id: 128 random bits, as in a UUID, which takes longer to make."""
    return secrets.token_hex(16)


def encode_command(
    command: Command,
    token: str,
    *,
    reply_to: str = REPLIES,
    traceparent: str = "",
    message_id: str = "",
    sent_at: datetime | None = None,
) -> Message:
    """
    Encode a command.

    Args:
        token: its `token.sign_token`, which the reply copies.
        reply_to: the queue of its reply, one of `topology.reply_queue`.
    """
    headers: dict[str, str | int | bool] = {
        RUN_ID_HEADER: command.run_id,
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
    return Message(
        exchange=COMMANDS,
        routing_key=command.name,
        body=write_json(command.payload),
        message_id=message_id or new_message_id(),
        type=command.name,
        correlation_id=token,
        reply_to=reply_to,
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
    """Reads the headers of a command; a text has at most `max_bytes` bytes."""

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
        run_id=str(headers.parse_text(RUN_ID_HEADER, UUID)),
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
    """Say why a reply could not be sent; this must be known before the command is processed."""
    if not delivery.correlation_id or not delivery.reply_to:
        return "It has no correlation_id or no reply_to, so it cannot be answered."
    # Text that was not UTF-8 is longer than it was: each bad byte became a character of 3 bytes.
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
        raise ValueError("a timestamp needs a time zone")
    return parsed.astimezone(UTC)


def _format_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
