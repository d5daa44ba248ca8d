"""A message of a stream: AMQP 1.0 of any sender, read without an error."""

from typing import Any

from rstream.amqp import amqp_decoder

from saga_engine.events.consumers.header_attributes import content_type_attribute, read_attributes
from saga_engine.events.consumers.interfaces import IncomingMessage
from saga_engine.settings import Settings

_PREFIXES = ("cloudEvents_", "cloudEvents:")
_PREFIX = "ce-"


def incoming_message(offset: int, encoded: bytes, settings: Settings) -> IncomingMessage:
    """Read a message of a stream; one that is not AMQP 1.0 has a problem."""
    try:
        decoded: Any = amqp_decoder(encoded)
        properties = decoded.application_properties or {}
        headers = [(_unprefixed(_text(name)), _bytes(value)) for name, value in properties.items()]
        body = bytes(decoded.body) if isinstance(decoded.body, bytes | memoryview) else b""
        content_type = content_type_attribute(
            decoded.properties and decoded.properties.content_type
        )
    except Exception:  # noqa: BLE001 - of anything that a sender has written
        headers, body, content_type = [], encoded, {}
        problem = "It is not a message of AMQP 1.0."
    else:
        problem = ""
    attributes, header_problem = read_attributes(headers, _PREFIX, settings)
    return IncomingMessage(
        attributes=attributes | content_type,
        body=body[: settings.max_body_bytes],
        body_size=len(body),
        problem=problem or header_problem,
        offset=offset,
    )


def _text(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _bytes(value: object) -> bytes | str:
    return value if isinstance(value, bytes | str) else str(value)


def _unprefixed(name: str) -> str:
    """Give both prefixes of the AMQP binding of CloudEvents one form."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return f"{_PREFIX}{name.removeprefix(prefix)}"
    return name
