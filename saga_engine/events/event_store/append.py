"""An append: events for one stream, checked against what can be stored, and its result."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from saga_engine.errors import InvalidInput
from saga_engine.events.event_store.arguments import MAX_VERSION, require_instance
from saga_engine.events.event_store.event_types import EVENT_NAME_RULE, event_type_of, is_event_name
from saga_engine.events.event_store.expected_version import ANY, ExpectedVersion, StreamState
from saga_engine.events.event_store.recorded import EventData
from saga_engine.events.event_store.stored_fields import ORIGIN_NAMES
from saga_engine.message_context import MessageContext
from saga_engine.payload.guard import UserCodeError
from saga_engine.payload.limits import BodyLimits, LimitName, find_violation
from saga_engine.payload.payload import (
    UNSTORABLE_VALUES,
    PayloadError,
    is_storable,
    to_json_bytes,
    type_name,
)
from saga_engine.settings import Settings
from saga_engine.store.json_column import dumps

RUN_PREFIX = "run-"
"""How the names of streams of runs begin; only the engine appends to these."""

_UNUSABLE_CHARACTER = re.compile("[*\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""`*` ends a pattern of names. The others divide a line, or are not seen at all."""


@dataclass(frozen=True, slots=True)
class Append:
    """
    Events to append to one stream.

    Args:
        stream: its name, `<aggregate>-<id>`, such as `order-o-1`.
        events: at least one, each an instance of a declared event, or EventData; they are stored
            in this order, with consecutive versions.
        expected: what the stream must be like: the version of its last event, NEW, EXISTING, or
            ANY, which is the default.
    """

    stream: str
    events: Sequence[EventData | object]
    expected: ExpectedVersion = ANY


@dataclass(frozen=True, slots=True)
class Appended:
    """
    What was appended.

    Args:
        position: of the last event; a reader that has passed it has seen all of them.
        versions: the version of each stream now.
        recorded_at: the time of the database when it stored the last event.
    """

    position: int
    versions: Mapping[str, int]
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """One event that can be stored; `data` is JSON, of `size` bytes in UTF-8."""

    stream: str
    expected: ExpectedVersion
    type: str
    schema_version: int
    fingerprint: str | None
    data: str = field(repr=False)
    size: int


def checked_events(appends: Sequence[Append], settings: Settings) -> list[NewEvent]:
    """
    Return the events of *appends* in order, ready to be stored.

    Raises:
        InvalidInput: a name, an expected version or an event cannot be stored.
    """
    if not appends:
        raise InvalidInput("Nothing is appended. Give at least one Append.")
    for append in appends:
        fix = 'Give each as an argument: Append("order-o-1", [event]).'
        require_instance(append, Append, "What is appended", fix)
        require_instance(
            append.events,
            list | tuple,
            f"What is appended to stream {append.stream!r}",
            "Give a list, also of one event.",
        )
    count = sum(len(append.events) for append in appends)
    if count > settings.max_append_events:
        raise InvalidInput(
            f"The append has {count} events; max_append_events allows"
            f" {settings.max_append_events}. Append them in several transactions."
        )
    streams = set[str]()
    for append in appends:
        _check_append(append, settings)
        if append.stream in streams:
            raise InvalidInput(
                f"Stream {append.stream!r} is twice in one append. Put its events in one Append."
            )
        streams.add(append.stream)
    return [
        _checked_event(append, _event_data(append, event), settings)
        for append in appends
        for event in append.events
    ]


def metadata_json(context: MessageContext, settings: Settings) -> str:
    """
    Write what is known of the origin of events as JSON.

    Raises:
        InvalidInput: a part cannot be stored.
    """
    fix = 'Give MessageContext(correlation_id=..., causation_id=..., actor="mara").'
    require_instance(context, MessageContext, "The context", fix)
    known = {name: value for name in ORIGIN_NAMES if (value := getattr(context, name)) is not None}
    for name, value in known.items():
        _check_text(f"The {name} of an append", value, settings.max_request_text_bytes)
    return dumps(known)


def check_stream(stream: str, settings: Settings) -> None:
    """Raise InvalidInput if *stream* is not the name of a stream that users append to."""
    check_stream_name(stream, settings)
    if stream.startswith(RUN_PREFIX):
        raise InvalidInput(
            f"Stream {stream!r} belongs to a run, whose events only the engine appends. Give your"
            " aggregate another name than 'run'."
        )


def check_stream_name(stream: str, settings: Settings) -> None:
    """Raise InvalidInput if *stream* is not the name of a stream."""
    _check_text("The name of a stream", stream, settings.max_stream_name_bytes)
    aggregate, hyphen, entity = stream.partition("-")
    if not (aggregate and hyphen and entity):
        raise InvalidInput(
            f"{stream!r} is not the name of a stream. It is <aggregate>-<id>, such as order-o-1."
        )
    if found := _UNUSABLE_CHARACTER.search(stream):
        raise InvalidInput(
            f"{stream!r} is not the name of a stream: it has the character {found.group()!r}. A"
            " name has no `*`, which ends a pattern of names, and no control characters."
        )


def _check_append(append: Append, settings: Settings) -> None:
    check_stream(append.stream, settings)
    if not append.events:
        raise InvalidInput(f"The append to stream {append.stream!r} has no events.")
    expected = append.expected
    is_version = type(expected) is int and 0 <= expected <= MAX_VERSION
    if not is_version and not isinstance(expected, StreamState):
        raise InvalidInput(
            f"The append to stream {append.stream!r} expects {expected!r}, which is neither a"
            " version, from 0, nor NEW, EXISTING or ANY."
        )


def _event_data(append: Append, event: object) -> EventData:
    if isinstance(event, EventData):
        return event
    event_type = event_type_of(type(event))
    if event_type is None:
        raise InvalidInput(
            f"The append to stream {append.stream!r} has a {type_name(type(event))}, which is not"
            ' an event. Declare its class, as with @orders.event("order-placed"), or give'
            " EventData."
        )
    try:
        return event_type.write(event)
    except (PayloadError, UserCodeError) as error:
        raise InvalidInput(
            f"The event {event_type.name!r} for stream {append.stream!r} cannot be stored: {error}."
        ) from None


def _checked_event(append: Append, event: EventData, settings: Settings) -> NewEvent:
    if not is_event_name(event.type):
        raise InvalidInput(
            f"{event.type!r:.80} for stream {append.stream!r} is not the name of an event."
            f" {EVENT_NAME_RULE}"
        )
    subject = f"The event {event.type!r} for stream {append.stream!r}"
    if type(event.schema_version) is not int or not 1 <= event.schema_version <= MAX_VERSION:
        raise InvalidInput(
            f"{subject} has the schema version {event.schema_version!r}; the first one is 1."
        )
    body = to_json_bytes(event.data)
    if body is None:
        raise InvalidInput(f"{subject} has {UNSTORABLE_VALUES}.")
    if orjson.loads(body) != event.data:
        raise InvalidInput(
            f"{subject} has data that is not JSON, and would be read as something else. Use texts,"
            " numbers, booleans, lists, dicts with texts as keys, and None."
        )
    limits = BodyLimits(
        settings.max_event_bytes, settings.max_body_depth, settings.max_body_json_values
    )
    if found := find_violation(body, limits):
        if found.limit is LimitName.BYTES:
            raise InvalidInput(
                f"{subject} has more than {limits.max_bytes} bytes of data, which max_event_bytes"
                " allows. Store the data elsewhere, and its address in the event."
            )
        raise InvalidInput(f"{subject} cannot be stored. {found.message}")
    return NewEvent(
        stream=append.stream,
        expected=append.expected,
        type=event.type,
        schema_version=event.schema_version,
        fingerprint=event.fingerprint,
        data=body.decode(),
        size=len(body),
    )


def _check_text(subject: str, text: Any, max_bytes: int) -> None:
    if not isinstance(text, str) or not text or not is_storable(text):
        raise InvalidInput(
            f"{subject} must be a text that is not empty and that PostgreSQL can store."
        )
    if len(text.encode()) > max_bytes:
        raise InvalidInput(f"{subject} has more than {max_bytes} bytes.")
