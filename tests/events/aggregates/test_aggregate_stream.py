"""The state of an aggregate is that of its snapshot and the events after it, or of all events."""

import asyncio
from contextlib import suppress
from random import Random

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from saga_engine import Rejected
from saga_engine.errors import UnreadableEvent
from saga_engine.events import Append, EventData, Events, handle_in, replay
from saga_engine.events.aggregates.decision import decide
from saga_engine.settings import Settings
from tests.kit.event_database import connected, wait_for_waiting_append
from tests.kit.wallet import Deposit, Wallet, Withdraw, wallets

DEPOSITED = EventData("wallet-deposited", 3, {"amount": 7, "currency": "EUR"})
OTHER_STATE = (
    "UPDATE saga_engine.snapshot SET state = jsonb_set(state::jsonb, '{balances,EUR}', '100')::json"
)


async def snapshot_of(url: str) -> tuple[int, str] | None:
    async with connected(url) as connection:
        row = await connection.fetchrow("SELECT version, state FROM saga_engine.snapshot")
        return None if row is None else tuple(row)


async def test_a_snapshot_is_written_after_the_interval_in_the_same_transaction(
    event_url: str, user_engine: AsyncEngine
):
    settings = Settings(snapshot_interval=3)
    versions = []
    async with Events(event_url, settings=settings) as events:
        for _ in range(7):
            await events.handle(wallets, "w1", Deposit(amount=1))
            snapshot = await snapshot_of(event_url)
            versions.append(snapshot and snapshot[0])
        assert versions == [None, None, 3, 3, 3, 6, 6]
        async with user_engine.connect() as connection:
            for _ in range(3):
                await handle_in(connection, wallets, "w1", Deposit(amount=1), settings=settings)
            await connection.rollback()
        snapshot = await snapshot_of(event_url)
    assert snapshot is not None
    assert snapshot[0] == 6


async def run_sql(engine: AsyncEngine, sql: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(sql))


async def balances(events: Events) -> dict[str, int]:
    found: dict[str, int] = (await events.handle(wallets, "w1", Deposit(amount=0))).state.balances
    return found


async def test_the_state_is_that_of_the_snapshot_and_the_events_after_it(
    event_url: str, user_engine: AsyncEngine
):
    async with Events(event_url, settings=Settings(snapshot_interval=3)) as events:
        for _ in range(5):
            await events.handle(wallets, "w1", Deposit(amount=1))
        await run_sql(user_engine, OTHER_STATE)
        assert await balances(events) == {"EUR": 102}


@pytest.mark.parametrize(
    "change",
    [
        "fingerprint = 'another'",
        'state = \'{"closed": "perhaps"}\'',
        "version = 99",
    ],
)
async def test_a_snapshot_of_other_code_or_of_another_history_is_not_used(
    event_url: str, user_engine: AsyncEngine, change: str
):
    async with Events(event_url, settings=Settings(snapshot_interval=3)) as events:
        for _ in range(5):
            await events.handle(wallets, "w1", Deposit(amount=1))
        await run_sql(user_engine, OTHER_STATE)
        await run_sql(user_engine, f"UPDATE saga_engine.snapshot SET {change}")
        assert await balances(events) == {"EUR": 5}


async def test_a_snapshot_whose_event_is_missing_hides_nothing(
    event_url: str, user_engine: AsyncEngine
):
    async with Events(event_url, settings=Settings(snapshot_interval=3)) as events:
        for _ in range(5):
            await events.handle(wallets, "w1", Deposit(amount=1))
        await run_sql(user_engine, "DELETE FROM saga_engine.stream_event WHERE version = 3")
        with pytest.raises(UnreadableEvent, match="the stream has no event 3"):
            await events.handle(wallets, "w1", Deposit(amount=1))


async def test_a_missing_event_is_an_error_and_not_another_state(
    events: Events, user_engine: AsyncEngine
):
    await events.append(Append("wallet-w1", [DEPOSITED] * 3))
    await run_sql(user_engine, "DELETE FROM saga_engine.stream_event WHERE version = 2")
    with pytest.raises(UnreadableEvent, match="the stream has no event 2"):
        await events.handle(wallets, "w1", Deposit(amount=1))


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(each, marks=pytest.mark.long) for each in range(2, 8))]
)
async def test_random_commands_leave_the_state_of_a_replay_with_any_snapshots_and_pages(
    event_url: str, seed: int
):
    rng = Random(seed)
    settings = Settings(
        snapshot_interval=rng.randint(1, 9),
        event_batch_size=rng.randint(1, 9),
        event_batch_bytes=rng.choice([1, 100, 10_000]),
        replay_pages=rng.randint(1, 3),
    )
    state = Wallet()
    async with Events(event_url, settings=settings) as events:
        for _ in range(60):
            kind = rng.choice([Deposit, Deposit, Withdraw])
            command = kind(amount=rng.randint(0, 9), currency=rng.choice(["EUR", "USD"]))
            with suppress(Rejected):
                state = decide(wallets, state, command).state
                done = await events.handle(wallets, "w1", command)
                assert done.state == state
        stored = [event async for event in events.read("wallet-w1")]
    assert replay(wallets, stored) == state
    assert len(stored) > 20


@pytest.mark.parametrize("pages", [1, 2, 7, 8, 100])
async def test_a_stream_of_many_pages_is_replayed_whole_in_any_number_of_transactions(
    event_url: str, user_engine: AsyncEngine, pages: int
):
    settings = Settings(event_batch_size=7, replay_pages=pages)
    async with Events(event_url, settings=settings) as events:
        await events.append(Append("wallet-w1", [DEPOSITED] * 49))
        assert await balances(events) == {"EUR": 343}
        async with user_engine.begin() as connection:
            await handle_in(connection, wallets, "w1", Withdraw(amount=43), settings=settings)
        assert (await events.handle(wallets, "w1", Withdraw(amount=300))).version == 51


async def test_what_a_conflict_interrupts_leaves_no_trace_in_the_state(
    event_url: str, user_engine: AsyncEngine
):
    """The fold of a withdrawal changes its state in place."""
    settings = Settings(event_batch_size=7, replay_pages=2)
    withdrawn = EventData("wallet-withdrawn", 1, {"amount": 1, "currency": "EUR"})
    async with Events(event_url, settings=settings) as events, user_engine.connect() as other:
        await events.append(Append("wallet-w1", [*[DEPOSITED] * 14, withdrawn]))
        await handle_in(other, wallets, "w1", Deposit(amount=100), settings=settings)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(events.handle(wallets, "w1", Deposit(amount=1000)))
            await wait_for_waiting_append(event_url)
            await other.commit()
    assert (task.result().version, task.result().state.balances) == (17, {"EUR": 1197})
