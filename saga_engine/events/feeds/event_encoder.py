"""
The data of events as the bodies of messages: JSON as it is stored, or Avro.

A body depends on nothing but its event, so a repeated one is the same. In Avro it is written with
the schema that the event was stored with. An event without one, which was appended before its
schema was registered, is written with the oldest registered schema of its version that its data
fits: schemas are never changed, and one that is registered later changes nothing.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from saga_engine.errors import InvalidInput, UnreadableEvent
from saga_engine.events.event_store.recorded import Recorded, data_json
from saga_engine.schemas.avro_codec import AVRO_CONTENT_TYPE, frame
from saga_engine.schemas.known_schemas import KnownSchema, WrittenSchemas

JSON_CONTENT_TYPE = "application/json"

YIELD_INTERVAL = 50
"""Events in Avro after which other tasks run: one takes 10 to 100 microseconds."""


@dataclass(frozen=True, slots=True)
class EncodedData:
    """
    The data of an event as it is published.

    Args:
        content_type: the media type of the body.
        body: of the message.
        schema_id: of the registered schema that the data has; None: it is not known.
    """

    content_type: str
    body: bytes = field(repr=False)
    schema_id: int | None


class NotEncodable(Exception):
    """
    An event cannot be written.

    Args:
        problem: a sentence with what is wrong, and the beginning of one with what to do first.
    """


class EventEncoder(Protocol):
    """One format of bodies."""

    async def encode(self, events: Sequence[Recorded]) -> list[EncodedData | None]:
        """
        Encode events; None for each that cannot be encoded.

        Raises:
            StoreError: the schemas cannot be read now.
        """

    def encode_one(self, event: Recorded) -> EncodedData:
        """
        Encode an event with what is known.

        Raises:
            UnreadableEvent: its data is not JSON that can be read and written.
            NotEncodable: its schema is not registered, or its data does not fit it.
        """


def encoding_problem(encoder: EventEncoder, event: Recorded, retry_command: str) -> str | None:
    """Say why an event cannot be encoded, and what to do next; None: it can be encoded."""
    try:
        encoder.encode_one(event)
    except UnreadableEvent as error:
        return f"The event cannot be published: {error.problem}. Discard the event."
    except NotEncodable as error:
        return f"{error}, then run `{retry_command}`; or discard the event."
    return None


class JsonEncoder:
    """JSON as it is stored, with all digits of its numbers."""

    async def encode(self, events: Sequence[Recorded]) -> list[EncodedData | None]:
        """Encode events; see EventEncoder."""
        return [self._encode(each) for each in events]

    def encode_one(self, event: Recorded) -> EncodedData:
        """Encode an event; see EventEncoder."""
        return EncodedData(JSON_CONTENT_TYPE, data_json(event), event.schema_id)

    def _encode(self, event: Recorded) -> EncodedData | None:
        try:
            return self.encode_one(event)
        except UnreadableEvent:
            return None


class AvroEncoder:
    """
    Avro in the frame of a registry.

    Args:
        schemas: of the database that the events are from.
    """

    def __init__(self, schemas: WrittenSchemas) -> None:
        self._schemas = schemas

    async def encode(self, events: Sequence[Recorded]) -> list[EncodedData | None]:
        """Encode events; see EventEncoder. For one that fails, the registry is read once more."""
        encoded: list[EncodedData | None] = []
        read: dict[tuple[str, int], Sequence[KnownSchema]] = {}
        for number, event in enumerate(events, 1):
            version = event.type, event.schema_version
            found = self._encode(event, read.get(version) or self._schemas.find(*version))
            if found is None and version not in read:
                read[version] = await self._schemas.read(*version)
                found = self._encode(event, read[version])
            encoded.append(found)
            if number % YIELD_INTERVAL == 0:
                await asyncio.sleep(0)
        return encoded

    def encode_one(self, event: Recorded) -> EncodedData:
        """Encode an event; see EventEncoder."""
        return _with_schemas(event, self._schemas.find(event.type, event.schema_version))

    def _encode(self, event: Recorded, schemas: Sequence[KnownSchema]) -> EncodedData | None:
        try:
            return _with_schemas(event, schemas)
        except (UnreadableEvent, NotEncodable):
            return None


def _with_schemas(event: Recorded, schemas: Sequence[KnownSchema]) -> EncodedData:
    """Encode an event with one of the schemas of its version."""
    event.require_exact_numbers()
    data = data_json(event)
    own = [each for each in schemas if each.id == event.schema_id]
    problem = ""
    for each in own or schemas:
        try:
            body = frame(each.id, each.codec.encode(orjson.loads(data)))
        except InvalidInput as error:
            problem = str(error)
        else:
            return EncodedData(AVRO_CONTENT_TYPE, body, each.id)
    raise NotEncodable(_problem(event, own, schemas, problem))


def _problem(
    event: Recorded, own: Sequence[KnownSchema], schemas: Sequence[KnownSchema], problem: str
) -> str:
    name = f"{event.type} version {event.schema_version}"
    if own:
        return (
            f"{problem} It was stored with schema {own[0].id}. Publish the events in JSON, by"
            " another feed or with encoding='json'"
        )
    if schemas:
        return (
            f"{problem} The event was stored without a schema, and none that is registered of"
            f" {name} fits it. Register that of the class which has written it:"
            " `saga-engine schemas register MODULE`"
        )
    return f"No schema of {name} is registered. Register it: `saga-engine schemas register MODULE`"
