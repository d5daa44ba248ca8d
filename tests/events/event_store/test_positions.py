"""
A reader up to the horizon loses no event and reads each stream in order.

Each case that a simpler reader gets wrong also shows that it does: one that continues after the
highest position it has seen, or one that orders by transaction and stops at the oldest open one.
"""

import asyncio
from itertools import pairwise

import asyncpg
import pytest

from saga_engine.errors import StoreUnavailable
from saga_engine.events import Events
from saga_engine.settings import Settings
from saga_engine.store.migrate import upgrade
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.event_database import connected
from tests.kit.servers import running_postgres

INSERT = (
    "INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)"
    " VALUES ($1, $2, 'placed', 1, '{}', '{}') RETURNING position"
)
BELOW_XMIN = """
    SELECT stream, version FROM saga_engine.stream_event
    WHERE xmin::text::bigint < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    ORDER BY xmin::text::bigint, position"""
"""In the order of transactions, below the oldest open one; no id wraps around in a test."""


async def append(connection, stream, version=1):
    return await connection.fetchval(INSERT, stream, version)


async def horizon(connection):
    return await connection.fetchval("SELECT saga_engine.event_horizon()")


async def read(connection, after=0):
    """The events up to the horizon, in order, and the horizon."""
    until = await horizon(connection)
    rows = await connection.fetch(
        "SELECT stream, version FROM saga_engine.stream_event"
        " WHERE position > $1 AND position <= $2 ORDER BY position",
        after,
        until,
    )
    return [tuple(row) for row in rows], until


@pytest.fixture
async def three(event_url):
    """Three connections: two write, one reads."""
    async with connected(event_url) as a, connected(event_url) as b, connected(event_url) as reader:
        yield a, b, reader


async def test_an_event_that_commits_late_is_not_passed_over(three):
    late, early, reader = three
    opened = late.transaction()
    await opened.start()
    await append(late, "order-late")
    seen_by_position = await append(early, "order-early")
    found, until = await read(reader)
    assert found == []
    await opened.commit()
    assert (await read(reader, until))[0] == [("order-late", 1), ("order-early", 1)]
    lost = await reader.fetch(
        "SELECT stream FROM saga_engine.stream_event WHERE position > $1", seen_by_position
    )
    assert lost == []  # a reader that has seen that position never gets the late one


async def test_a_transaction_that_began_earlier_does_not_reorder_a_stream(three):
    first, second, reader = three
    opened = first.transaction()
    await opened.start()
    await first.execute("SELECT pg_current_xact_id()")  # as a write or a row lock does
    await append(second, "order-1", 1)
    await append(first, "order-1", 2)
    await opened.commit()
    assert (await read(reader))[0] == [("order-1", 1), ("order-1", 2)]
    by_transaction = [tuple(row) for row in await reader.fetch(BELOW_XMIN)]
    assert by_transaction == [("order-1", 2), ("order-1", 1)]


async def test_an_open_transaction_of_another_database_delays_no_reader(three, event_server):
    """Also when it has appended events there."""
    elsewhere = await event_server.create_database("elsewhere")
    await upgrade(elsewhere, EVENT_DATABASE)
    _, writer, reader = three
    async with connected(elsewhere) as other:
        opened = other.transaction()
        await opened.start()
        await append(other, "order-elsewhere")
        await append(writer, "order-1")
        assert (await read(reader))[0] == [("order-1", 1)]
        assert await reader.fetch(BELOW_XMIN) == []
        await opened.rollback()
    await event_server.drop_database("elsewhere")


async def test_an_open_create_index_of_the_same_database_delays_no_reader(three):
    owner, writer, reader = three
    await owner.execute("CREATE TABLE read_model (number integer)")
    opened = owner.transaction()
    await opened.start()
    await owner.execute("CREATE INDEX ON read_model (number)")
    await append(writer, "order-1")
    assert (await read(reader))[0] == [("order-1", 1)]
    assert await reader.fetch(BELOW_XMIN) == []
    await opened.rollback()


async def test_a_prepared_transaction_holds_the_horizon_until_it_ends(three):
    preparing, writer, reader = three
    await preparing.execute("BEGIN")
    await append(preparing, "order-prepared")
    await preparing.execute("PREPARE TRANSACTION 'prepared'")
    position = await append(writer, "order-1")
    assert await read(reader) == ([], 0)
    await preparing.execute("COMMIT PREPARED 'prepared'")
    assert await read(reader) == ([("order-prepared", 1), ("order-1", 1)], position)


async def test_a_rolled_back_savepoint_releases_its_announcement(three):
    writer, other, reader = three
    opened = writer.transaction()
    await opened.start()
    savepoint = writer.transaction()
    await savepoint.start()
    await append(writer, "order-undone")
    await savepoint.rollback()
    position = await append(other, "order-1")
    assert await read(reader) == ([("order-1", 1)], position)
    # What it appends now has to be announced again.
    await append(writer, "order-2")
    await append(other, "order-3")
    assert await horizon(reader) == position
    await opened.commit()
    assert [stream for stream, _ in (await read(reader, position))[0]] == ["order-2", "order-3"]


async def test_the_first_append_of_a_database_is_announced(three):
    first, second, reader = three
    assert await read(reader) == ([], 0)
    opened = first.transaction()
    await opened.start()
    assert await append(first, "order-1") == 1
    await append(second, "order-2")
    assert await read(reader) == ([], 0)
    await opened.commit()
    assert (await read(reader))[0] == [("order-1", 1), ("order-2", 1)]


async def test_a_rolled_back_transaction_releases_its_announcement(three):
    writer, other, reader = three
    opened = writer.transaction()
    await opened.start()
    await append(writer, "order-undone")
    await opened.rollback()
    position = await append(other, "order-1")
    assert await read(reader) == ([("order-1", 1)], position)


async def test_a_transaction_announces_once_and_a_savepoint_once_more(three):
    writer, *_ = three
    count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    async with writer.transaction():
        for number in range(100):
            await append(writer, f"order-{number}")
        assert await writer.fetchval(count) == 1
        async with writer.transaction():
            await append(writer, "order-in-a-savepoint")
        assert await writer.fetchval(count) == 1
    assert await writer.fetchval(count) == 0


async def test_a_setting_of_the_session_does_not_replace_the_announcement(three):
    writer, other, reader = three
    await writer.execute("SET saga_engine.announced = '1'")
    opened = writer.transaction()
    await opened.start()
    await append(writer, "order-1")
    await append(other, "order-2")
    assert await read(reader) == ([], 0)
    await opened.commit()
    assert await reader.fetchval("SELECT count(*) FROM saga_engine.stream_event") == 2


async def test_two_transactions_announce_without_waiting_for_each_other(three):
    """Both announce the same position, because neither has drawn one yet."""
    first, second, reader = three
    async with first.transaction(), second.transaction():
        for writer in (first, second):
            await writer.execute("SET LOCAL lock_timeout = '2s'")
            await writer.execute("SELECT saga_engine.announce_positions()")
        for writer, stream in ((second, "order-2"), (first, "order-1")):
            await append(writer, stream)
        assert await read(reader) == ([], 0)
    assert [stream for stream, _ in (await read(reader))[0]] == ["order-2", "order-1"]


async def test_positions_that_are_drawn_together_are_consecutive(event_url):
    """
    Each session draws blocks of positions, and no block has another's position.

    Drawing a block again takes a lock, which no transaction keeps.
    """
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    drawing = "SELECT saga_engine.draw_positions($1)"
    sessions, blocks, size = 6, 100, 300

    async def draw(connection: asyncpg.Connection) -> list[int]:
        firsts = []
        for _ in range(blocks):
            async with connection.transaction():
                firsts.append(await connection.fetchval(drawing, size))
                assert await connection.fetchval(locks) == 1
        return firsts

    async def work() -> list[int]:
        async with connected(event_url) as connection:
            return await draw(connection)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(sessions)]
    firsts = sorted(first for task in tasks for first in task.result())
    assert len(firsts) == sessions * blocks
    assert all(later - first >= size for first, later in pairwise(firsts))


async def test_drawn_positions_are_announced_and_leave_no_other_lock(three):
    writer, other, reader = three
    async with writer.transaction():
        first = await writer.fetchval("SELECT saga_engine.draw_positions(3)")
        await append(other, "order-1")
        assert await horizon(reader) == first - 1
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert await reader.fetchval(locks) == 1
    with pytest.raises(asyncpg.InvalidParameterValueError, match="1 to 1000000"):
        await writer.fetchval("SELECT saga_engine.draw_positions(0)")


async def test_a_standby_has_no_horizon():
    """It does not know which transactions of its primary are open."""
    async with running_postgres() as server:
        url = await server.create_database("standby")
        await upgrade(url, EVENT_DATABASE)
        (server._data_directory / "standby.signal").touch()
        await server.restart()
        async with Events(url, settings=Settings()) as events:
            with pytest.raises(StoreUnavailable, match="is a standby or read-only"):
                await events.position()
