"""
A client's request: start a run, cancel a run, or read the status of a run.

A request names its run by an id that the client chose: sending it twice has the effect of sending
it once. The contract is docs/protocol.md, section "Requests"; `answer` has the engine's answers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

from saga_engine.protocol.body import JsonObject, read_json_object, write_json
from saga_engine.protocol.command import new_message_id
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.topology import REQUESTS
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json


class RequestVerb(StrEnum):
    """What a client asks for: the routing key and the type of its request."""

    START = "start"
    CANCEL = "cancel"
    STATUS = "status"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """Start a run; without a version, of the newest version that the engine knows."""

    run_id: UUID
    saga: str
    input: Json = field(repr=False)
    version: int | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Cancel a run; `operator` and `reason` are recorded."""

    run_id: UUID
    reason: str
    operator: str


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """Read the status of a run."""

    run_id: UUID


Request: TypeAlias = StartRequest | CancelRequest | StatusRequest


def encode_request(
    request: Request, *, reply_to: str = "", correlation_id: str = "", message_id: str = ""
) -> Message:
    """Encode a request; its answer goes to `reply_to` (docs/protocol.md, "Answers")."""
    verb, body = _verb_and_body(request)
    return Message(
        exchange=REQUESTS,
        routing_key=verb.value,
        body=write_json({"run_id": str(request.run_id), **body}),
        message_id=message_id or new_message_id(),
        type=verb.value,
        correlation_id=correlation_id,
        reply_to=reply_to,
    )


def decode_request(delivery: Delivery, settings: Settings) -> Request | UnreadableMessage:
    """Read a request; its kind is the routing key, or else the type."""
    parse = _PARSERS.get(delivery.routing_key) or _PARSERS.get(delivery.type)
    if parse is None:
        return UnreadableMessage(
            DeadLetterReason.BAD_REQUEST, "The routing key of a request is start, cancel or status."
        )
    body = read_json_object(delivery, settings)
    if isinstance(body, UnreadableMessage):
        return body
    try:
        return parse(_FieldReader(body, settings.max_request_text_bytes))
    except _BadFieldError as error:
        return UnreadableMessage(DeadLetterReason.BAD_REQUEST, str(error))


def is_status_request(delivery: Delivery) -> bool:
    """Whether a request asks for a status: its answer may be much larger than the request."""
    return RequestVerb.STATUS in (delivery.routing_key, delivery.type)


def read_run_id(body: JsonObject) -> UUID | None:
    """Read `run_id`; None unless it is a UUID in its canonical form."""
    text = body.get("run_id")
    try:
        run_id = UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return run_id if str(run_id) == text else None


def _verb_and_body(request: Request) -> tuple[RequestVerb, JsonObject]:
    match request:
        case StartRequest():
            return RequestVerb.START, {
                "saga": request.saga,
                "version": request.version,
                "key": request.key,
                "input": request.input,
            }
        case CancelRequest():
            return RequestVerb.CANCEL, {"reason": request.reason, "operator": request.operator}
        case StatusRequest():
            return RequestVerb.STATUS, {}


class _BadFieldError(Exception):
    def __init__(self, name: str, requirement: str) -> None:
        super().__init__(f"The field {name} must be {requirement}.")


class _FieldReader:
    """Reads the fields of a request; a text has at most `max_bytes` bytes."""

    def __init__(self, body: JsonObject, max_bytes: int) -> None:
        self.body = body
        self._max_bytes = max_bytes

    @property
    def run_id(self) -> UUID:
        run_id = read_run_id(self.body)
        if run_id is None:
            raise _BadFieldError("run_id", "a UUID in lower case with hyphens")
        return run_id

    def require_text(self, name: str) -> str:
        value = self.body.get(name)
        if not isinstance(value, str) or not 0 < len(value.encode()) <= self._max_bytes:
            raise _BadFieldError(
                name, f"a text of 1 to {self._max_bytes} bytes (max_request_text_bytes)"
            )
        return value


def _parse_start(fields: _FieldReader) -> StartRequest:
    body = fields.body
    version = body.get("version")
    if version is not None and (
        not isinstance(version, int) or isinstance(version, bool) or not 0 < version < 2**31
    ):
        raise _BadFieldError("version", "null or an integer from 1")
    if "input" not in body:
        raise _BadFieldError("input", "present")
    return StartRequest(
        run_id=fields.run_id,
        saga=fields.require_text("saga"),
        input=body["input"],
        version=version,
        key=None if body.get("key") is None else fields.require_text("key"),
    )


def _parse_cancel(fields: _FieldReader) -> CancelRequest:
    return CancelRequest(
        fields.run_id, fields.require_text("reason"), fields.require_text("operator")
    )


def _parse_status(fields: _FieldReader) -> StatusRequest:
    return StatusRequest(fields.run_id)


_PARSERS: dict[str, Callable[[_FieldReader], Request]] = {
    RequestVerb.START: _parse_start,
    RequestVerb.CANCEL: _parse_cancel,
    RequestVerb.STATUS: _parse_status,
}
