"""A schema is stored once, with an id that never changes."""

import pytest

from saga_engine.errors import NotFound, TooManySchemas
from saga_engine.schemas import registry
from saga_engine.schemas.compatibility import Compatibility
from saga_engine.schemas.declared_schema import SchemaKind
from saga_engine.settings import Settings
from tests.kit.declared_schemas import declared_json
from tests.kit.schema_pairs import INTEGER, TEXT, record

PLACED = declared_json(record({"z": TEXT, "a": TEXT}, "z"), 1)
CHANGED = declared_json(record({"z": INTEGER}), 2)
REPLY = declared_json(TEXT, 1, "buy/charge/reply", SchemaKind.REPLY)


async def insert(database, *declared, settings=None):
    async with database.transaction() as tx:
        await registry.lock_subjects(tx, declared)
        return await registry.insert(tx, declared, settings or Settings())


async def test_schemas_are_read_as_they_were_registered(database):
    ids = await insert(database, CHANGED, PLACED, REPLY)
    assert ids == {registry.key_of(each): n for n, each in enumerate((CHANGED, PLACED, REPLY), 1)}
    async with database.transaction() as tx:
        reply, first, second = await registry.read(tx)
        only = await registry.read(tx, ["order-placed"])
        subjects = await registry.read_subjects(tx)
    assert [first, second] == only
    assert (first.id, first.schema, second.id) == (2, PLACED.schema, 1)
    assert list(first.schema.writes["properties"]) == ["z", "a"]  # type: ignore[index, call-overload, arg-type]
    assert reply.fingerprint == REPLY.fingerprint
    assert {name: (each.kind, each.compatibility) for name, each in subjects.items()} == {
        "buy/charge/reply": (SchemaKind.REPLY, Compatibility.BACKWARD),
        "order-placed": (SchemaKind.EVENT, Compatibility.BACKWARD_TRANSITIVE),
    }


async def test_only_registered_schemas_are_found(database):
    await insert(database, PLACED)
    async with database.transaction() as tx:
        assert await registry.find_ids(tx, [PLACED, CHANGED]) == {registry.key_of(PLACED): 1}
        assert await registry.find_ids(tx, []) == {}


async def test_a_subject_has_a_limited_number_of_schemas(database):
    settings = Settings(max_schema_versions=2)
    many = [declared_json({"maxLength": size}, size) for size in (1, 2, 3)]
    await insert(database, *many[:2], settings=settings)
    with pytest.raises(TooManySchemas, match="more than 2 registered schemas"):
        await insert(database, many[2], settings=settings)
    async with database.transaction() as tx:
        assert len(await registry.read(tx)) == 2


async def test_the_mode_of_a_subject_is_changed(database):
    await insert(database, PLACED)
    async with database.transaction() as tx:
        await registry.set_compatibility(tx, "order-placed", Compatibility.NONE)
        assert (await registry.read_subjects(tx))["order-placed"].compatibility == "none"
        with pytest.raises(NotFound, match="No schema 'other' is registered"):
            await registry.set_compatibility(tx, "other", Compatibility.NONE)
    await insert(database, CHANGED)
    async with database.transaction() as tx:
        assert (await registry.read_subjects(tx))["order-placed"].compatibility == "none"
