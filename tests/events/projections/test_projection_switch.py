"""A projection is rebuilt beside its live tables and switched; no reader fails or sees less."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.errors import Conflict, NotFound
from saga_engine.events.projections.projection_actions import audited
from saga_engine.events.projections.projection_table import ProjectionRole
from saga_engine.events.readers.operator_audit import Action, read
from tests.kit.programs import wait_until_true
from tests.kit.projections import (
    append_one,
    append_orders,
    check_read_model,
    placed,
    projection_database,
    running_projector,
)
from tests.kit.read_model import orders_projection
from tests.kit.rebuilds import (
    BACK,
    MARA,
    SWITCH,
    all_events,
    begin,
    rebuilt,
    relations,
    sql,
    sql_rows,
    switch,
    versions,
    wait_for_all,
    wait_for_registration,
)

RIGHTS = """
SELECT relname, attname, grantee, privilege_type, is_grantable
FROM (SELECT relname, NULL AS attname, relowner, relacl AS acl FROM pg_class
    UNION ALL
    SELECT relname, attname, relowner, attacl FROM pg_attribute JOIN pg_class ON oid = attrelid)
    AS c, aclexplode(acl)
WHERE relname IN ('orders_by_customer', 'order_by_id') AND grantee <> relowner ORDER BY 1, 2, 4"""

TRIGGER = (
    "BEFORE UPDATE ON order_by_id FOR EACH ROW"
    " EXECUTE FUNCTION suppress_redundant_updates_trigger()"
)


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


async def test_a_switch_shows_the_rebuilt_tables_and_back_the_previous_ones(
    events, event_url, database
):
    before = await relations(database)
    async with rebuilt(events, event_url, database):
        done = await switch(database)
        assert (done.version, done.previous) == (2, 1)
        await check_read_model(database, await all_events(events))
        await append_orders(events, 10, seed=1)
        await wait_for_all(database, await events.position())
        await check_read_model(database, await all_events(events))
        found = await versions(database)
        assert found[ProjectionRole.LIVE].version == 2
        assert found[ProjectionRole.PREVIOUS].version == 1
        back = await switch(database, BACK)
        assert (back.version, back.previous) == (1, 2)
        with pytest.raises(AssertionError):
            await check_read_model(database, await all_events(events))
        assert (await switch(database)).version == 2
        await check_read_model(database, await all_events(events))
    names = {name for name in await relations(database) if "~" not in name}
    assert names == set(before)
    async with database.transaction() as tx:
        actions = await read(tx, audited("orders"), 10)
    assert [(each.action, each.version) for each in actions] == [
        (SWITCH, 2),
        (BACK, 1),
        (SWITCH, 2),
        (Action.REBUILD, 2),
    ]
    assert {(each.operator, each.reason) for each in actions} == {("mara", MARA.reason)}


class TableReaders:
    """Read the tables until they are stopped, with prepared statements and with new ones."""

    def __init__(self, engine):
        self.stop = asyncio.Event()
        self._engine = engine
        self._reads = 0

    async def read(self):
        """No table is empty or older than it was."""
        seen = 0
        async with self._engine.connect() as connection:
            while not self.stop.is_set():
                row = await connection.exec_driver_sql(
                    "SELECT (SELECT sum(orders) FROM orders_by_customer),"
                    f" (SELECT count(*) FROM order_by_id WHERE {self._reads % 3} < 3)"
                )
                orders, rows = row.one()
                await connection.commit()
                assert rows > 0
                assert orders >= seen
                seen = orders
                self._reads += 1

    async def go_on(self):
        """Wait for more reads."""
        wanted = self._reads + 10

        async def have_gone_on():
            return self._reads >= wanted

        await wait_until_true(have_gone_on, interval=0.01)


async def test_no_reader_fails_or_sees_an_empty_or_older_table(events, event_url, database):
    """While events are appended."""
    engine = create_async_engine(event_url.replace("postgresql://", "postgresql+asyncpg://"))
    readers = TableReaders(engine)

    async def append():
        seed = 2
        while not readers.stop.is_set():
            await append_orders(events, 5, seed=seed)
            seed += 1

    async with rebuilt(events, event_url, database), asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(readers.read())
        tasks.create_task(append())
        for _ in range(4):
            await switch(database)
            await readers.go_on()
            await switch(database, BACK)
            await readers.go_on()
        readers.stop.set()
    await engine.dispose()


async def test_a_process_that_starts_later_continues_each_version(events, event_url, database):
    async with rebuilt(events, event_url, database):
        pass
    await append_orders(events, 5, seed=1)
    async with running_projector(event_url, [orders_projection()]):
        await wait_for_all(database, await events.position())
        await switch(database)
    await append_orders(events, 5, seed=2)
    async with running_projector(event_url, [orders_projection()]):
        await wait_for_all(database, await events.position())
    await check_read_model(database, await all_events(events))


async def test_rights_on_the_live_tables_are_those_on_the_new_ones(events, event_url, database):
    """Default privileges give the new tables others, which are taken away."""
    role = "reader"
    await sql(
        database,
        f"CREATE ROLE {role}",
        f"GRANT SELECT ON orders_by_customer TO {role} WITH GRANT OPTION",
        f"GRANT UPDATE (status), SELECT (id) ON order_by_id TO {role}",
        f"ALTER DEFAULT PRIVILEGES GRANT SELECT, DELETE ON TABLES TO {role}",
    )
    before = await sql_rows(database, RIGHTS)
    async with rebuilt(events, event_url, database):
        await switch(database)
    assert await sql_rows(database, RIGHTS) == before
    await sql(database, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("CREATE VIEW big AS SELECT * FROM order_by_id", "view big reads order_by_id"),
        (
            "CREATE TABLE note (id text REFERENCES order_by_id)",
            "foreign key note_id_fkey of note refers to order_by_id",
        ),
        (
            "CREATE FUNCTION n() RETURNS bigint RETURN (SELECT count(*) FROM order_by_id)",
            r"function n\(\) uses order_by_id",
        ),
        (f"CREATE TRIGGER noted {TRIGGER}", "trigger noted of order_by_id"),
        (
            "CREATE POLICY own ON order_by_id USING (customer = current_user)",
            "policy own of order_by_id",
        ),
        ("CREATE PUBLICATION p FOR TABLE order_by_id", "publication p of order_by_id"),
        ("CREATE TABLE child () INHERITS (order_by_id)", "child inherits from order_by_id"),
        ("CREATE INDEX by_hand ON order_by_id (status)", "index by_hand of order_by_id is not"),
    ],
)
async def test_what_depends_on_the_old_tables_is_named(
    events, event_url, database, statement, problem
):
    async with rebuilt(events, event_url, database):
        await sql(database, statement)
        with pytest.raises(Conflict, match=problem):
            await switch(database)
        assert (await versions(database))[ProjectionRole.LIVE].version == 1


async def test_a_long_reader_delays_a_switch_which_is_given_up(events, event_url, database):
    async with rebuilt(events, event_url, database):
        async with database.transaction() as reader:
            await reader.connection.exec_driver_sql("SELECT count(*) FROM order_by_id")
            with pytest.raises(Conflict, match="have held locks"):
                await switch(
                    database,
                    projection_switch_timeout=0.2,
                    projection_switch_lock_timeout=0.05,
                )
        assert (await switch(database)).version == 2


async def test_a_rebuild_that_is_not_ready_is_not_switched_to(events, event_url, database):
    await append_orders(events, 5)
    async with running_projector(event_url, [orders_projection()]):
        await wait_for_registration(database)
        await wait_for_all(database, await events.position())
        with pytest.raises(NotFound, match="no rebuild"):
            await switch(database)
        with pytest.raises(NotFound, match="no previous tables"):
            await switch(database, BACK)
    await begin(database)
    with pytest.raises(Conflict, match="not ready"):
        await switch(database)


async def test_another_version_of_the_code_fills_the_new_tables(events, event_url, database):
    await append_orders(events, 10)
    newer = orders_projection(version=2)
    async with running_projector(event_url, [orders_projection()]):
        await wait_for_registration(database)
        assert (await begin(database, code_version=2)).version == 2
        async with running_projector(event_url, [newer]):
            await wait_for_all(database, await events.position())
            assert (await switch(database)).version == 2
            await append_orders(events, 10, seed=1)
            await wait_for_all(database, await events.position())
            await check_read_model(database, await all_events(events))
            assert (await switch(database, BACK)).version == 1
            await check_read_model(database, await all_events(events))


async def test_a_read_of_ones_own_writes_waits_for_the_live_version(events, event_url, database):
    """The declaration of either version can be given; a rebuild that is behind does not matter."""
    async with running_projector(event_url, [orders_projection()]):
        position = await append_one(events, "order-1", placed())
        await events.caught_up(orders_projection(), position, timeout=10)
        await begin(database, code_version=2)  # no process runs it
        position = await append_one(events, "order-1", placed())
        await events.caught_up(orders_projection(), position, timeout=10)
        await events.caught_up(orders_projection(version=2), position, timeout=10)


async def test_a_version_that_no_process_runs_is_given_up_at_once(events, event_url, database):
    async with rebuilt(events, event_url, database):
        pass
    await append_orders(events, 2, seed=1)
    ahead = "UPDATE saga_engine.projection SET position = position + 5 WHERE version = 1"
    await sql(database, ahead)
    with pytest.raises(Conflict, match="did not catch up with the live one"):
        await switch(database, projection_switch_catch_up_timeout=0.05)
