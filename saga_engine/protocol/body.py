"""
Message bodies: strict JSON within limits, or the reason why not. No bytes raise an exception.

Stricter than Python's json, because what is read here is stored in PostgreSQL and shown to people:
no NaN or Infinity, no number beyond a double, no lone surrogate, no NUL, no byte order mark, no
nesting beyond the limit. Of a duplicate key the last value counts, as in PostgreSQL's jsonb. An
integer beyond 64 bits is read as a double, and refused if that would alter it.

`payload.limits` checks the limits on the bytes, before anything is decoded.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import orjson

from saga_engine.payload.limits import (
    BodyLimits,
    LimitName,
    LimitViolation,
    depth_violation,
    exceeds_depth,
    find_violation,
    has_inexact_integer,
)
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.limits import body_limits
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json

_IDENTITY_ENCODINGS = ("", "identity", "utf-8")
JsonObject: TypeAlias = dict[str, Json]
"""A JSON object, as orjson reads it."""


def read_body(delivery: Delivery, settings: Settings) -> Json | UnreadableMessage:
    """Read a body, unless its headers cannot be read or it exceeds `max_body_bytes`."""
    if delivery.header_problem:
        return UnreadableMessage(DeadLetterReason.BAD_HEADERS, delivery.header_problem)
    if delivery.body_size > settings.max_body_bytes:
        return UnreadableMessage(
            DeadLetterReason.TOO_LARGE,
            f"The body has {delivery.body_size} bytes; max_body_bytes allows"
            f" {settings.max_body_bytes}.",
        )
    if delivery.content_encoding.lower() not in _IDENTITY_ENCODINGS:
        return UnreadableMessage(
            DeadLetterReason.UNSUPPORTED_ENCODING,
            "The body is compressed or encoded; only plain JSON is read.",
        )
    return limit_violation(delivery.body, settings) or _parse_json(delivery.body)


def read_json_object(delivery: Delivery, settings: Settings) -> JsonObject | UnreadableMessage:
    """Read a body that must be a JSON object."""
    body = read_body(delivery, settings)
    if isinstance(body, UnreadableMessage | dict):
        return body
    return UnreadableMessage(DeadLetterReason.NOT_AN_OBJECT, "The body is JSON, but not an object.")


def read_json(body: bytes, max_depth: int) -> Json | UnreadableMessage:
    """Read JSON whose arrays and objects nest at most `max_depth` levels."""
    return (
        _over_limit(depth_violation(max_depth))
        if exceeds_depth(body, max_depth)
        else _parse_json(body)
    )


def limit_violation(body: bytes, settings: Settings) -> UnreadableMessage | None:
    """
    Check a body against the limits of the settings without decoding it.

    The limits are `max_body_bytes`, `max_body_depth` and `max_body_json_values`. Bytes that are not
    JSON are not reported here.
    """
    violation = find_violation(body, body_limits(settings))
    return None if violation is None else _over_limit(violation)


def _over_limit(violation: LimitViolation) -> UnreadableMessage:
    reason = (
        DeadLetterReason.TOO_DEEP
        if violation.limit is LimitName.DEPTH
        else DeadLetterReason.TOO_LARGE
    )
    return UnreadableMessage(reason, violation.message)


def read_json_within(body: bytes, limits: BodyLimits) -> Json | UnreadableMessage:
    """Read JSON that is not the body of a message, within the limits of one."""
    violation = find_violation(body, limits)
    return _parse_json(body) if violation is None else _over_limit(violation)


def write_json(value: Json) -> bytes:
    """
    Encode a value.

    Raises:
        TypeError: it is not JSON: another type, an integer beyond 64 bits, a lone surrogate.
    """
    return orjson.dumps(value)


def _parse_json(body: bytes) -> Json | UnreadableMessage:
    try:
        value: Json = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # The message of the error names a position and a rule, and quotes nothing.
        if "depth limit" in error.msg:
            return UnreadableMessage(
                DeadLetterReason.TOO_DEEP, "The body nests deeper than can be read."
            )
        return UnreadableMessage(
            DeadLetterReason.MALFORMED_JSON, f"The body is not JSON: {error.msg}."
        )
    if b"\\u0000" in body and _has_nul(value):
        return UnreadableMessage(
            DeadLetterReason.NOT_STORABLE,
            "A text in the body contains the character NUL (\\u0000).",
        )
    if has_inexact_integer(body):
        return UnreadableMessage(
            DeadLetterReason.NOT_STORABLE,
            "The body holds an integer beyond 64 bits, which would be altered. Send it as a text,"
            " or with an exponent if a double is meant.",
        )
    return value


def _walk_values(value: Json) -> Iterator[Json]:
    """Yield a value and every value inside it, without recursion, which has a limit."""
    pending = [value]
    while pending:
        item = pending.pop()
        yield item
        pending.extend(_child_values(item))


def _child_values(container: Json) -> Iterable[Json]:
    if isinstance(container, dict):
        return container.values()
    return container if isinstance(container, list) else ()


def _has_nul(value: Json) -> bool:
    return any(
        "\0" in item if isinstance(item, str) else isinstance(item, dict) and "\0" in "".join(item)
        for item in _walk_values(value)
    )
