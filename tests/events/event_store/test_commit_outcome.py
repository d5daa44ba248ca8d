"""After a lost COMMIT the client knows whether its events were appended."""

import asyncio
import re

import pytest

from saga_engine.errors import StoreUnavailable
from saga_engine.events import NEW, Append, Events
from saga_engine.settings import Settings
from tests.kit.event_database import connected, placed
from tests.kit.proxy import running_proxy
from tests.kit.wallet import Deposit, wallets


async def versions(url: str) -> list[int]:
    async with connected(url) as connection:
        rows = await connection.fetch("SELECT version FROM saga_engine.stream_event")
    return [row["version"] for row in rows]


async def test_an_append_whose_commit_was_not_answered_is_known_to_be_committed(tcp_url: str):
    once = iter([True])
    async with running_proxy(tcp_url) as proxy, Events(proxy.url, settings=Settings()) as events:
        proxy.cut_before_answer(lambda request: b"COMMIT" in request and next(once, False))
        done = await events.append(Append("order-1", [placed()], NEW))
        assert proxy.lost_answers == 1
        assert (done.versions, done.position) == ({"order-1": 1}, await events.position())
    assert await versions(tcp_url) == [1]


async def end_each_commit(url: str) -> None:
    """End the session of each append at its COMMIT, so that the server rolls back."""
    async with connected(url) as connection:
        await connection.execute(
            "CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        )
        await connection.execute(
            "CREATE CONSTRAINT TRIGGER end_session AFTER INSERT ON saga_engine.stream_event"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION end_session()"
        )


async def test_an_append_whose_commit_never_arrived_is_known_not_to_be_committed(tcp_url: str):
    await end_each_commit(tcp_url)
    async with Events(tcp_url, settings=Settings()) as events:
        with pytest.raises(StoreUnavailable, match=r"Nothing was appended: try again\."):
            await events.append(Append("order-1", [placed()], NEW))
    assert await versions(tcp_url) == []


async def test_an_event_that_took_the_place_of_a_lost_one_is_not_taken_for_it(tcp_url: str):
    """After a failover the position and the version that were lost are given again."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%event_horizon() >= $1%'"
    await end_each_commit(tcp_url)
    async with (
        asyncio.timeout(60),
        connected(tcp_url) as other,
        Events(tcp_url, settings=Settings()) as events,
        asyncio.TaskGroup() as group,
        connected(tcp_url) as holder,
        holder.transaction(),
    ):
        await holder.execute("SELECT saga_engine.announce_positions()")
        lost = group.create_task(refused(events, Append("order-1", [placed()], NEW)))
        while not await other.fetchval(asked):
            pass
        await other.execute("DROP TRIGGER end_session ON saga_engine.stream_event")
        await other.execute("SELECT setval('saga_engine.event_position', 0)")
        done = await events.append(Append("order-1", [placed()], NEW))
        assert (done.versions, done.position) == ({"order-1": 1}, 1)
    assert "Nothing was appended: try again." in lost.result()


async def refused(events: Events, append: Append) -> str:
    with pytest.raises(StoreUnavailable) as error:
        await events.append(append)
    return str(error.value)


async def test_a_command_without_events_needs_no_commit(tcp_url: str):
    once = iter([True])
    async with running_proxy(tcp_url) as proxy, Events(proxy.url, settings=Settings()) as events:
        proxy.cut_before_answer(lambda request: b"COMMIT" in request and next(once, False))
        done = await events.handle(wallets, "w1", Deposit(amount=0))
        assert proxy.lost_answers == 1
    assert (done.version, done.events) == (0, ())


async def test_an_outcome_that_cannot_be_found_out_is_unknown(tcp_url: str):
    settings = Settings(database_transaction_timeout=1.0)
    async with running_proxy(tcp_url) as proxy, Events(proxy.url, settings=settings) as events:
        proxy.cut_before_answer(lambda request: bool(re.search(b"COMMIT|event_horizon", request)))
        with pytest.raises(StoreUnavailable, match="is unknown: read the stream"):
            await events.append(Append("order-1", [placed()], NEW))
