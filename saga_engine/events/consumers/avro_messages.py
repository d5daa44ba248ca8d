"""
Messages in Avro as JSON, with the schemas of a registry.

A batch reads the schemas that it needs and that are not known by one statement, so a flood of
messages whose schemas are not registered costs one statement for each batch.
"""

from collections.abc import Container, Sequence

import orjson

from saga_engine.errors import InvalidInput
from saga_engine.events.consumers.interfaces import CONTENT_TYPE, IncomingMessage
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.feeds.cloud_event import schema_uri
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.limits import body_limits
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.schemas.avro_codec import AVRO_CONTENT_TYPE, unframe
from saga_engine.schemas.known_schemas import SchemasById
from saga_engine.settings import Settings
from saga_engine.store.database import Database

_CONTENT_TYPES = frozenset({AVRO_CONTENT_TYPE, "avro/binary"})


def is_avro(message: IncomingMessage) -> bool:
    """Whether the content type of a message says that its body is in Avro."""
    media_type = str(message.attributes.get(CONTENT_TYPE, "")).partition(";")[0]
    return media_type.strip().lower() in _CONTENT_TYPES


class AvroMessages:
    """
    Reads the bodies of messages.

    Args:
        registry: the database with the schemas.
        settings: the limits of a body, and how many schemas are kept.
    """

    def __init__(self, registry: Database, settings: Settings) -> None:
        self._registry = registry
        self._schemas = SchemasById(registry, settings)
        self._limits = body_limits(settings)
        self._log: EventLog | None = None

    async def prepare(self, messages: Sequence[IncomingMessage], types: Container[str]) -> None:
        """
        Read the schemas of messages that are not known; `read` has them until the next call.

        Args:
            messages: a batch.
            types: of the events that are read.

        Raises:
            StoreError: the registry is unavailable.
        """
        ids = {
            schema_id
            for each in messages
            if is_avro(each)
            and isinstance(type_ := each.attributes.get("type"), str)
            and type_ in types
            and (schema_id := _schema_id(each)) is not None
        }
        if not ids:
            return
        if self._log is None:
            async with self._registry.transaction() as tx:
                self._log = await EventLog.load(tx)
        await self._schemas.read(ids)

    def read(self, message: IncomingMessage) -> bytes | UnreadableMessage:
        """Return the body of a message that `prepare` has seen as JSON, or why it is none."""
        try:
            return self._to_json(message)
        except InvalidInput as error:
            return UnreadableMessage(DeadLetterReason.INVALID_INPUT, str(error))

    def _to_json(self, message: IncomingMessage) -> bytes:
        schema_id, value = unframe(message.body)
        self._require_own_registry(message, schema_id)
        schema = self._schemas.find(schema_id)
        if schema is None:
            raise InvalidInput(
                f"Its schema {schema_id} is not in the registry of this consumer. Set"
                " SAGA_ENGINE_REGISTRY_DATABASE_URL to the database of the feed, or register the"
                " schema there; then retry the message."
            )
        if schema.subject != message.attributes["type"]:
            raise InvalidInput(
                f"Its schema {schema_id} is registered for another type of event, so it is of"
                " another registry. Set SAGA_ENGINE_REGISTRY_DATABASE_URL to the database of the"
                " feed; then retry the message."
            )
        data = schema.codec.decode(value, self._limits)
        try:
            return orjson.dumps(data)
        except TypeError:
            raise InvalidInput(
                "It has a text, a number or a depth that JSON does not have. Check what its"
                " producer sends."
            ) from None

    def _require_own_registry(self, message: IncomingMessage, schema_id: int) -> None:
        """Refuse a schema whose name says that it is registered in another database."""
        named = message.attributes.get("dataschema")
        if named is None or self._log is None:
            return
        if named != schema_uri(self._log.id, schema_id):
            raise InvalidInput(
                f"Its attribute dataschema does not name schema {schema_id} of the registry of this"
                " consumer. Set SAGA_ENGINE_REGISTRY_DATABASE_URL to the database of the feed;"
                " then retry the message."
            )


def _schema_id(message: IncomingMessage) -> int | None:
    try:
        return unframe(message.body)[0]
    except InvalidInput:
        return None
