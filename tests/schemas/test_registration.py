"""What processes load is registered once, and judged against what was registered before."""

import asyncio

from saga_engine.schemas import registry
from saga_engine.schemas.compatibility import Compatibility
from saga_engine.schemas.registration import find_breaks, register
from saga_engine.settings import Settings
from tests.kit.declared_schemas import declared_json
from tests.kit.schema_pairs import INTEGER, TEXT, record

SETTINGS = Settings()
A = declared_json(record({"a": TEXT}, "a"))
A_AND_OPTIONAL = declared_json(record({"a": TEXT, "b": TEXT}, "a"))
A_AND_B = declared_json(record({"a": TEXT, "b": TEXT}, "a", "b"))


async def load(database, *declared):
    """Register schemas as one process does; return what breaks."""
    async with database.transaction() as tx:
        return await register(tx, declared, SETTINGS)


async def ids(database):
    async with database.transaction() as tx:
        return [each.id for each in await registry.read(tx)]


async def test_an_unchanged_schema_keeps_its_id(database):
    for _ in range(3):
        assert await load(database, A) == []
    assert await ids(database) == [1]


async def test_an_event_that_is_registered_is_judged_again_by_each_process(database):
    await load(database, A)
    for _ in range(2):
        (found,) = await load(database, A_AND_B)
        assert (found.earlier.id, found.incompatibility.path) == (1, "b")
    assert await load(database, A) == []  # it reads what A_AND_B writes


async def test_a_compatible_change_is_registered(database):
    await load(database, A)
    assert await load(database, A_AND_OPTIONAL) == []
    assert await load(database, A) == []
    assert await ids(database) == [1, 2]


async def test_a_change_that_breaks_is_returned(database):
    await load(database, A)
    (found,) = await load(database, A_AND_B)
    assert (found.earlier.id, found.incompatibility.path) == (1, "b")


async def test_the_versions_of_one_process_are_judged_one_after_another(database):
    versions = [declared_json(each, n) for n, each in ((2, record({})), (1, INTEGER), (3, TEXT))]
    breaks = await load(database, *versions)
    assert [(each.declared.schema.version, each.earlier.schema.version) for each in breaks] == [
        (2, 1),
        (3, 1),
        (3, 2),
    ]


async def test_a_mode_that_compares_nothing_lets_everything_pass(database):
    await load(database, A)
    async with database.transaction() as tx:
        await registry.set_compatibility(tx, "order-placed", Compatibility.NONE)
        assert await find_breaks(tx, [A_AND_B]) == []
    assert await load(database, A_AND_B) == []


async def test_nothing_is_registered_by_a_check(database):
    async with database.transaction() as tx:
        assert await find_breaks(tx, [A]) == []
    assert await ids(database) == []


async def test_processes_that_start_at_once_register_each_schema_once(database):
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            for each in (A, A_AND_OPTIONAL):
                tasks.create_task(load(database, each))
    async with database.transaction() as tx:
        stored = await registry.read(tx)
    assert {each.fingerprint for each in stored} == {A.fingerprint, A_AND_OPTIONAL.fingerprint}
    assert len(stored) == 2


async def test_of_two_processes_that_start_at_once_one_is_judged_against_the_other(database):
    results = []

    async def start(declared):
        results.append(await load(database, declared))

    async with asyncio.TaskGroup() as tasks:
        for each in (declared_json(TEXT), declared_json(INTEGER)):
            tasks.create_task(start(each))
    assert sorted(map(len, results)) == [0, 1]
