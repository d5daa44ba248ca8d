"""
Registered schemas as one process has read them, with the codecs that write and read Avro.

    WrittenSchemas   by the version of an event: a feed writes its events with them
    SchemasById      by their ids: a consumer reads messages with them

A schema never changes, so what was read stays right. What is not known is read again when it is
needed: it may have been registered since.
"""

from collections import OrderedDict
from collections.abc import Collection, Hashable, Sequence
from functools import cached_property
from typing import Generic, TypeVar

from saga_engine.schemas import registry
from saga_engine.schemas.avro_codec import AvroCodec
from saga_engine.schemas.stored_schema import StoredSchema
from saga_engine.settings import Settings
from saga_engine.store.database import Database

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class KnownSchema:
    """
    A registered schema and its codec, which is made when it is first needed.

    Args:
        stored: as it is registered.
    """

    def __init__(self, stored: StoredSchema) -> None:
        self.id = stored.id
        self.subject = stored.subject
        self._writes = stored.schema.writes

    @cached_property
    def codec(self) -> AvroCodec:
        """
        What writes and reads its values.

        Raises:
            InvalidInput: it has no Avro schema.
        """
        return AvroCodec(self.subject, self._writes)


class WrittenSchemas:
    """
    The schemas of versions of events.

    Args:
        database: with the registry.
        settings: of how many versions the schemas are kept.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._known: _Recent[tuple[str, int], Sequence[KnownSchema]] = _Recent(settings)

    def find(self, subject: str, version: int) -> Sequence[KnownSchema]:
        """Return what is known, in the order of registration."""
        return self._known.find((subject, version)) or ()

    async def read(self, subject: str, version: int) -> Sequence[KnownSchema]:
        """
        Read and return the schemas of a version.

        Raises:
            StoreError: the database is unavailable.
        """
        async with self._database.transaction() as tx:
            stored = await registry.read_version(tx, subject, version)
        known = {each.id: each for each in self.find(subject, version)}
        found = [known.get(each.id) or KnownSchema(each) for each in stored]
        self._known.add((subject, version), found)
        self._known.shrink()
        return found


class SchemasById:
    """
    The schemas of messages.

    Args:
        database: with the registry.
        settings: how many are kept.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._known: _Recent[int, KnownSchema] = _Recent(settings)

    def find(self, schema_id: int) -> KnownSchema | None:
        """Return a schema that is known."""
        return self._known.find(schema_id)

    async def read(self, ids: Collection[int]) -> None:
        """
        Read those of some schemas that are not known, by one statement.

        They are known until the next call, however many they are.

        Raises:
            StoreError: the database is unavailable.
        """
        missing = [each for each in ids if self.find(each) is None]
        if not missing:
            return
        async with self._database.transaction() as tx:
            stored = await registry.read_ids(tx, missing)
        self._known.shrink()
        for each in stored:
            self._known.add(each.id, KnownSchema(each))


class _Recent(Generic[Key, Value]):
    """A dict that forgets what was not used for the longest time."""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.max_known_schemas
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def find(self, key: Key) -> Value | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def add(self, key: Key, value: Value) -> None:
        self._values[key] = value

    def shrink(self) -> None:
        while len(self._values) > self._limit:
            self._values.popitem(last=False)
