"""
The JSON Schemas of the headers of commands, replies and events.

docs/protocol.md explains the headers.
"""

from collections.abc import Collection
from typing import Any

from saga_engine.protocol.command import (
    ATTEMPT_HEADER,
    DEADLINE_HEADER,
    DIRECTION_HEADER,
    IDEMPOTENCY_KEY_HEADER,
    RUN_ID_HEADER,
    SAGA_HEADER,
    STEP_HEADER,
    TRACEPARENT_HEADER,
    VERSION_HEADER,
)
from saga_engine.protocol.reply import OUTCOME_HEADER
from saga_engine.vocabulary import Direction

Schema = dict[str, Any]

_TEXT = {"type": "string"}
_UUID = {"type": "string", "format": "uuid"}
_COUNT = {"type": "integer", "minimum": 1}
_TIME = {"type": "string", "format": "date-time"}
_DIGITS = {"type": "string", "pattern": "^[0-9]+$"}

_OPTIONAL_EVENT_ATTRIBUTES = ("dataschema", "correlationid", "causationid", "actor")


def command_headers() -> Schema:
    """Describe the headers of a command."""
    properties: Schema = {
        IDEMPOTENCY_KEY_HEADER: _described(_TEXT, "The same for all attempts of one command."),
        RUN_ID_HEADER: _UUID,
        SAGA_HEADER: _TEXT,
        VERSION_HEADER: _COUNT,
        STEP_HEADER: _TEXT,
        DIRECTION_HEADER: {"type": "string", "enum": [each.value for each in Direction]},
        ATTEMPT_HEADER: _COUNT,
        DEADLINE_HEADER: _described(_TIME, "When the engine stops waiting for this attempt."),
        TRACEPARENT_HEADER: _described(_TEXT, "W3C trace context."),
    }
    return _object(properties, optional=(TRACEPARENT_HEADER,))


def reply_headers(outcomes: Collection[str]) -> Schema:
    """Describe the headers of a reply with one of some outcomes; absent means succeeded."""
    properties: Schema = {OUTCOME_HEADER: {"type": "string", "enum": [*outcomes]}}
    return _object(properties, optional=(OUTCOME_HEADER,) if "succeeded" in outcomes else ())


def event_headers(prefix: str) -> Schema:
    """Describe the CloudEvents attributes of an event as headers that begin with *prefix*."""
    attributes: Schema = {
        "specversion": {"type": "string", "const": "1.0"},
        "id": _described(_UUID, "Always the same for an event."),
        "source": _described(_TEXT, "urn:uuid: and the identity of the event log."),
        "type": _TEXT,
        "subject": _described(_TEXT, "The stream."),
        "time": _TIME,
        "sequence": _described(_DIGITS, "The position: rises in each stream, with gaps."),
        "streamversion": _DIGITS,
        "schemaversion": _described(_DIGITS, "The version of the type that wrote the data."),
        **dict.fromkeys(_OPTIONAL_EVENT_ATTRIBUTES, _TEXT),
    }
    return _object(
        {prefix + name: schema for name, schema in attributes.items()},
        optional=[prefix + name for name in _OPTIONAL_EVENT_ATTRIBUTES],
    )


def webhook_headers() -> Schema:
    """Describe the headers of an event that is sent to a webhook: CloudEvents and the signature."""
    described = event_headers("ce-")
    signature: Schema = {
        "webhook-id": _described(_UUID, "The id of the event, the same at each attempt."),
        "webhook-timestamp": _described(_DIGITS, "Of this attempt, in seconds since 1970."),
        "webhook-signature": _described(_TEXT, "Standard Webhooks, v1; one for each secret."),
    }
    properties = {**described["properties"], **signature}
    return {**described, "properties": properties, "required": [*described["required"], *signature]}


def _object(properties: Schema, optional: Collection[str]) -> Schema:
    required = [name for name in properties if name not in optional]
    schema: Schema = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def _described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}
