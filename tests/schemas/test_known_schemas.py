"""What a process knows of a registry is read when it is needed, and bounded."""

from typing import Any

import pytest

from saga_engine.schemas import registration
from saga_engine.schemas.known_schemas import SchemasById, WrittenSchemas
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.declared_schemas import declared_json
from tests.kit.schema_pairs import INTEGER, TEXT, record

SCHEMAS: Any = [
    declared_json(record({"a": TEXT}, "a"), 1),
    declared_json(record({"a": TEXT, "b": INTEGER}, "a"), 1),
    declared_json(record({"a": TEXT}, "a"), 2),
    declared_json(record({"a": TEXT}, "a"), 3),
]


@pytest.fixture
async def database(migrated_url):
    async with Database(migrated_url, Settings(), EVENT_DATABASE) as opened:
        yield opened


async def registered(database, *declared):
    async with database.transaction() as tx:
        await registration.register(tx, declared, Settings())


async def test_the_schemas_of_a_version_are_known_in_their_order_after_they_were_read(database):
    known = WrittenSchemas(database, Settings())
    await registered(database, SCHEMAS[0])
    assert known.find("order-placed", 1) == ()
    await known.read("order-placed", 1)
    (first,) = known.find("order-placed", 1)
    await registered(database, *SCHEMAS[1:])
    assert [each.id for each in known.find("order-placed", 1)] == [1]
    await known.read("order-placed", 1)
    found = known.find("order-placed", 1)
    assert [each.id for each in found] == [1, 2]
    assert found[0] is first  # and its codec with it
    assert found[1].codec.encode({"a": "x"}) == b"\x02x\x00"


async def test_schemas_are_read_by_their_ids_and_those_that_do_not_exist_are_left_out(database):
    await registered(database, *SCHEMAS)
    known = SchemasById(database, Settings())
    await known.read([2, 7, 2**32 - 1])
    found = known.find(2)
    assert found is not None
    assert (found.id, found.subject) == (2, "order-placed")
    assert known.find(7) is None
    assert known.find(1) is None


async def test_what_was_not_used_for_the_longest_time_is_forgotten(database):
    await registered(database, *SCHEMAS)
    known = SchemasById(database, Settings(max_known_schemas=2))
    await known.read([1, 2])
    await known.read([1])
    assert known.find(2)
    assert known.find(1)
    await known.read([3])
    await known.read([4])
    assert [each for each in (1, 2, 3, 4) if known.find(each)] == [1, 3, 4]
    written = WrittenSchemas(database, Settings(max_known_schemas=1))
    await written.read("order-placed", 1)
    await written.read("order-placed", 2)
    assert not written.find("order-placed", 1)
    assert written.find("order-placed", 2)
