"""Which transaction holds the horizon back."""

import pytest

from saga_engine.events import Append
from saga_engine.events.event_store import positions
from saga_engine.events.readers.horizon_hold import find_hold
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.event_database import connected, placed

INSERT = """
    INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)
    VALUES ('order-9', 1, 'order-placed', 1, '{}', '{}')"""


@pytest.fixture
async def hold_of(event_url):
    async with Database(event_url, Settings(), EVENT_DATABASE) as database:

        async def find():
            async with database.transaction() as tx:
                return await find_hold(tx, await positions.horizon(tx))

        yield find


async def test_a_session_that_has_appended_is_named_until_it_ends(events, event_url, hold_of):
    assert await hold_of() is None
    async with connected(event_url) as other:
        await other.execute("SET application_name = 'billing'")
        async with other.transaction():
            await other.execute(INSERT)
            await events.append(Append("order-1", [placed()]))
            hold = await hold_of()
            assert (hold.application, hold.state) == ("billing", "idle in transaction")
            assert hold.pid == other.get_server_pid()
        assert await hold_of() is None


async def test_a_transaction_that_has_not_appended_holds_nothing(events, event_url, hold_of):
    async with connected(event_url) as other, other.transaction():
        await other.execute("CREATE TABLE notes (note text)")
        await events.append(Append("order-1", [placed()]))
        assert await hold_of() is None


async def test_a_prepared_transaction_is_named(events, event_url, hold_of):
    async with connected(event_url) as other:
        await other.execute("BEGIN")
        await other.execute(INSERT)
        await other.execute("PREPARE TRANSACTION 'transfer-7'")
        await events.append(Append("order-1", [placed()]))
        hold = await hold_of()
        await other.execute("ROLLBACK PREPARED 'transfer-7'")
        assert (hold.pid, hold.application, hold.state) == (None, "transfer-7", None)
    assert await hold_of() is None
