"""A lease is wanted and handed over as it was read, in the table of projections and of feeds."""

import pytest

from saga_engine.events.feeds import feed_table
from saga_engine.events.projections import projection_table
from saga_engine.events.readers.lease_share import Lease
from saga_engine.events.readers.lease_table import FEED_LEASES, PROJECTION_LEASES
from tests.kit.feeds import ORDERS
from tests.kit.projections import projection_database
from tests.kit.read_model import orders_projection

TABLES = [
    (PROJECTION_LEASES, "projection", ("orders", "1")),
    (FEED_LEASES, "feed", ("orders", "exchange")),
]


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        async with database.transaction() as tx:
            await projection_table.register(tx, [orders_projection()])
            await feed_table.register(tx, [ORDERS])
        yield database


async def own(database, table: str, owner: str, seconds: float = 60) -> None:
    async with database.transaction() as tx:
        lease = f"owner = '{owner}', leased_until = now() + interval '{seconds} s'"
        await tx.connection.exec_driver_sql(f"UPDATE saga_engine.{table} SET {lease}")


async def read(database, leases, key) -> Lease:
    async with database.transaction() as tx:
        found: list[Lease] = await leases.read(tx, [key])
    return found[0]


@pytest.mark.parametrize(("leases", "table", "key"), TABLES)
async def test_a_lease_is_handed_to_the_process_that_wants_it(database, leases, table, key):
    free = await read(database, leases, key)
    assert (free.owner, free.holder, free.ends_in) == (None, None, float("-inf"))
    await own(database, table, "a")
    held = await read(database, leases, key)
    assert (held.key, held.owner, held.wanted_by) == (key, "a", None)
    assert 50 < held.ends_in <= 60
    async with database.transaction() as tx:
        await leases.want(tx, held, "b", 60)
        await leases.want(tx, held, "c", 60)  # its holder is not the one that was read
    wanted = await read(database, leases, key)
    assert (wanted.owner, wanted.wanted_by) == ("a", "b")
    async with database.transaction() as tx:
        await leases.hand_over(tx, key, "c", 60)  # it has no lease
    assert (await read(database, leases, key)).owner == "a"
    async with database.transaction() as tx:
        await leases.hand_over(tx, key, "a", 30)
    given = await read(database, leases, key)
    assert (given.owner, given.wanted_by) == ("b", None)
    assert 20 < given.ends_in <= 30


@pytest.mark.parametrize(("leases", "table", "key"), TABLES)
async def test_what_was_wanted_too_long_ago_is_kept(database, leases, table, key):
    await own(database, table, "a")
    async with database.transaction() as tx:
        await leases.want(tx, (await leases.read(tx, [key]))[0], "b", -1)
        await leases.hand_over(tx, key, "a", 60)
    kept = await read(database, leases, key)
    assert (kept.owner, kept.wanted_by) == ("a", None)


@pytest.mark.parametrize(("leases", "table", "key"), TABLES)
async def test_a_lease_that_has_ended_has_no_owner(database, leases, table, key):
    await own(database, table, "a", -2)
    ended = await read(database, leases, key)
    assert ended.owner is None
    assert -3 < ended.ends_in < -1.9
    async with database.transaction() as tx:
        change = f"UPDATE saga_engine.{table} SET state = 'stopped'"
        await tx.connection.exec_driver_sql(change)
        assert await leases.read(tx, [key]) == []  # it is not to be run
