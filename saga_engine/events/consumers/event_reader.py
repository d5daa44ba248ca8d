"""
From a message to an event: the attributes of CloudEvents 1.0, and data in JSON or in Avro.

No message raises an error: what cannot be read is an UnreadableMessage. What a producer of another
kind leaves out is unknown, see Received; `id`, `source` and `type` are required by CloudEvents.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

from saga_engine.events.consumers.avro_messages import AvroMessages, is_avro
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.consumers.interfaces import IncomingMessage
from saga_engine.events.consumers.received import Received, key_of
from saga_engine.events.event_store.arguments import MAX_POSITION, MAX_VERSION
from saga_engine.events.event_store.event_log import set_content
from saga_engine.events.event_store.event_types import MAX_SCHEMA_VERSION
from saga_engine.events.event_store.stored_fields import StoredContent
from saga_engine.protocol.body import read_json_within
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.limits import body_limits
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json

MAX_ATTRIBUTE_BYTES = 2_000
"""The longest attribute that is read, in UTF-8; the names of saga-engine's streams are shorter."""

_IDENTITY_ENCODINGS = ("", "identity", "utf-8")
_NO_LOG = UUID(int=0)
"""In the place of the log's identity: the id is not made of the event."""


ReadAvro = Callable[[IncomingMessage], bytes | UnreadableMessage]
"""Makes JSON of a body in Avro."""


class EventReader:
    """
    Reads the messages of one consumer.

    Args:
        consumer: which events it has functions for.
        settings: the limits of a body.
        avro: reads bodies in Avro; the consumers of a process share it.
    """

    def __init__(self, consumer: Consumer, settings: Settings, avro: AvroMessages) -> None:
        self.consumer = consumer
        self._settings = settings
        self._avro = avro

    async def prepare(self, messages: Sequence[IncomingMessage]) -> None:
        """
        Read from the registry what `read` needs for messages.

        Raises:
            StoreError: it is unavailable.
        """
        await self._avro.prepare(messages, self.consumer.handlers)

    def read(
        self, message: IncomingMessage, received_at: datetime
    ) -> Received | UnreadableMessage | None:
        """Read the event in a message; see `read_event`."""
        types = self.consumer.handlers
        return read_event(message, types, self._settings, received_at, self._avro.read)


def read_event(
    message: IncomingMessage,
    types: Collection[str],
    settings: Settings,
    received_at: datetime,
    read_avro: ReadAvro,
) -> Received | UnreadableMessage | None:
    """
    Read the event in a message.

    Args:
        message: as it arrived.
        types: those that the consumer has a function for.
        settings: the limits of a body.
        received_at: the time of an event whose message does not say it.
        read_avro: makes JSON of a body whose content type is Avro; all others are read as JSON.

    Returns:
        The event; why it cannot be read; or None for a type that is not one of *types*, whose data
        is not looked at.
    """
    if message.problem:
        return UnreadableMessage(DeadLetterReason.BAD_HEADERS, message.problem)
    attributes = message.attributes
    problem = _attribute_problem(attributes)
    if problem:
        return UnreadableMessage(DeadLetterReason.BAD_HEADERS, problem)
    if attributes["type"] not in types:
        return None
    schema_version = _number(attributes.get("schemaversion", 1), MAX_SCHEMA_VERSION)
    if not schema_version:
        return UnreadableMessage(
            DeadLetterReason.BAD_HEADERS,
            f"Its attribute schemaversion is not a number from 1 to {MAX_SCHEMA_VERSION}.",
        )
    body = _read_body(message, settings, read_avro)
    if isinstance(body, UnreadableMessage):
        return body
    return _make_event(message, body, schema_version, received_at)


def _attribute_problem(attributes: Mapping[str, Json]) -> str:
    """Say which attribute makes a message no event of CloudEvents 1.0; empty: none."""
    specversion = attributes.get("specversion")
    if specversion is None:
        return "It has no attributes of CloudEvents 1.0, such as ce-specversion in RabbitMQ."
    if specversion != "1.0":
        return "Its attribute specversion is not 1.0."
    for name in ("id", "source", "type"):
        found = attributes.get(name)
        if not isinstance(found, str) or not found:
            return f"Its attribute {name} is missing, or is not a text."
    for name in ("id", "source", "type", "subject"):
        if len(str(attributes.get(name, "")).encode()) > MAX_ATTRIBUTE_BYTES:
            return f"Its attribute {name} has more than {MAX_ATTRIBUTE_BYTES} bytes."
    return ""


def _read_body(
    message: IncomingMessage, settings: Settings, read_avro: ReadAvro
) -> bytes | UnreadableMessage:
    """Return a body as JSON within the limits, or why it is none."""
    if message.body_size > settings.max_body_bytes:
        return UnreadableMessage(
            DeadLetterReason.TOO_LARGE,
            f"The body has {message.body_size} bytes; max_body_bytes allows"
            f" {settings.max_body_bytes}.",
        )
    if message.body_size > len(message.body):
        return UnreadableMessage(
            DeadLetterReason.TOO_LARGE,
            f"The body has {message.body_size} bytes, of which the first {len(message.body)} were"
            " kept when it arrived. Publish it again, and skip this one.",
        )
    if message.content_encoding.lower() not in _IDENTITY_ENCODINGS:
        return UnreadableMessage(
            DeadLetterReason.UNSUPPORTED_ENCODING,
            "The body is compressed or encoded; only plain JSON and Avro are read.",
        )
    body = read_avro(message) if is_avro(message) else message.body
    if isinstance(body, UnreadableMessage):
        return body
    read = read_json_within(body, body_limits(settings))
    return read if isinstance(read, UnreadableMessage) else body


def _make_event(
    message: IncomingMessage, body: bytes, schema_version: int, received_at: datetime
) -> Received:
    attributes = message.attributes
    source, source_id = str(attributes["source"]), str(attributes["id"])
    event = object.__new__(Received)
    fields = {
        "source": source,
        "source_id": source_id,
        "id": _uuid(source, source_id),
        "type": str(attributes["type"]),
        "stream": _text(attributes.get("subject")) or "",
        "version": _number(attributes.get("streamversion"), MAX_VERSION),
        "place": 0,
        "position": _number(attributes.get("sequence"), MAX_POSITION),
        "schema_version": schema_version,
        "schema_id": None,
        "recorded_at": _time(attributes.get("time")) or received_at,
        "correlation_id": _text(attributes.get("correlationid")),
        "causation_id": _text(attributes.get("causationid")),
        "actor": _text(attributes.get("actor")),
    }
    for name, value in fields.items():
        object.__setattr__(event, name, value)
    # As of a stored event: the model reads the text, with all digits of its numbers.
    set_content(event, StoredContent(_NO_LOG, body.decode(), "{}"))
    return event


def _uuid(source: str, source_id: str) -> UUID:
    """The id itself when it is a UUID of a log of saga-engine; else one that is made of it."""
    if source.startswith("urn:uuid:"):
        with suppress(ValueError):
            return UUID(source_id)
    return key_of(source.encode(), source_id.encode())


def _text(given: Json) -> str | None:
    if isinstance(given, str) and len(given.encode()) <= MAX_ATTRIBUTE_BYTES:
        return given
    return None


def _number(given: Json, maximum: int) -> int:
    """A number, or its digits, from 1 to *maximum*; 0 for anything else."""
    if isinstance(given, str) and len(given) <= len(str(MAX_POSITION)) and given.isascii():
        given = int(given) if given.isdigit() else 0
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= maximum:
        return given
    return 0


def _time(given: Json) -> datetime | None:
    """A time of RFC 3339; None if it is not one, or has no zone."""
    if not isinstance(given, str) or len(given) > MAX_ATTRIBUTE_BYTES:
        return None
    try:
        read = datetime.fromisoformat(given)
        return read.astimezone(UTC) if read.tzinfo else None
    except (ValueError, OverflowError):
        return None
