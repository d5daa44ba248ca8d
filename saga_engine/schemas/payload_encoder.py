"""
Payloads of events as bytes, for feeds and consumers: JSON, or Avro with the id of its schema.

    encoder = AvroEncoder(await registry.read(tx))
    body = encoder.encode(event.type, event.schema_version, event.schema_id, data_json(event))
    data = encoder.decode(body)
"""

from collections.abc import Iterable
from typing import Protocol

import orjson

from saga_engine.errors import InvalidInput, NotFound
from saga_engine.schemas.avro_codec import AvroCodec, frame, unframe
from saga_engine.schemas.stored_schema import StoredSchema
from saga_engine.vocabulary import Json


class PayloadEncoder(Protocol):
    """One format of payloads."""

    @property
    def content_type(self) -> str:
        """The media type, for the header of a message."""

    def encode(
        self, event_type: str, schema_version: int, schema_id: int | None, data: bytes
    ) -> bytes:
        """
        Write the data of an event.

        Args:
            event_type: its name.
            schema_version: the version of its type that wrote the data.
            schema_id: of its registered schema; None if it was stored without one.
            data: as JSON.

        Raises:
            NotFound: its schema is not known to the encoder. Make one of all schemas again; if it
                is not registered, register it.
            InvalidInput: the data does not fit the schema, or the schema cannot be written.
        """

    def decode(self, body: bytes) -> Json:
        """
        Read the data of an event.

        Raises:
            NotFound: it was written with a schema that is not known to the encoder.
            InvalidInput: it is in another format, or damaged.
        """


class JsonEncoder:
    """JSON, as it is stored."""

    content_type = "application/json"

    def encode(
        self, event_type: str, schema_version: int, schema_id: int | None, data: bytes
    ) -> bytes:
        """Return the data unchanged; see PayloadEncoder."""
        del event_type, schema_version, schema_id
        return data

    def decode(self, body: bytes) -> Json:
        """Read JSON; see PayloadEncoder."""
        try:
            data: Json = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise InvalidInput("A message is not JSON. Check what its producer sends.") from None
        return data


class AvroEncoder:
    """
    Avro in the frame of a registry, with the ids of registered schemas.

    Args:
        schemas: those that it knows.
    """

    content_type = "application/avro"

    def __init__(self, schemas: Iterable[StoredSchema]) -> None:
        self._schemas = {each.id: each for each in sorted(schemas, key=lambda each: each.id)}
        # Of one version the last one that was registered.
        self._ids = {
            (each.subject, each.schema.version): each.id for each in self._schemas.values()
        }
        self._codecs: dict[int, AvroCodec] = {}

    def encode(
        self, event_type: str, schema_version: int, schema_id: int | None, data: bytes
    ) -> bytes:
        """
        Write the data with the schema of its event; see PayloadEncoder.

        An event that was stored without a schema is written with the newest one of its version.
        """
        if schema_id is None:
            schema_id = self._ids.get((event_type, schema_version))
        if schema_id is None:
            raise NotFound(
                f"No schema of {event_type} version {schema_version} is registered. Register it:"
                " `saga-engine schemas register MODULE`."
            )
        return frame(schema_id, self._codec(schema_id).encode(orjson.loads(data)))

    def decode(self, body: bytes) -> Json:
        """Read a value with the schema whose id precedes it; see PayloadEncoder."""
        schema_id, value = unframe(body)
        return self._codec(schema_id).decode(value)

    def _codec(self, schema_id: int) -> AvroCodec:
        codec = self._codecs.get(schema_id)
        if codec is None:
            schema = self._schemas.get(schema_id)
            if schema is None:
                raise NotFound(
                    f"Schema {schema_id} is not known. `saga-engine schemas list` shows those of"
                    " this database."
                )
            codec = AvroCodec(schema.subject, schema.schema.writes)
            self._codecs[schema_id] = codec
        return codec
