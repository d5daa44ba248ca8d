"""A command of an aggregate is decided on its newest state, and its events are appended once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from saga_engine import Participant, Rejected
from saga_engine.errors import (
    DefinitionError,
    InvalidInput,
    SagaEngineError,
    UnreadableEvent,
    WrongVersion,
)
from saga_engine.events import (
    Aggregate,
    Append,
    EventData,
    Events,
    MessageContext,
    handle_in,
    replay,
)
from saga_engine.events.aggregates.aggregate_stream import LoadedAggregate, LongReplay
from saga_engine.events.aggregates.command_handling import Handled, retry_conflicts
from saga_engine.message_context import handling
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.vocabulary import Outcome
from tests.kit.event_database import wait_for_waiting_append
from tests.kit.events import EventRecorder
from tests.kit.payments_participant import DirectExecutor, make_command
from tests.kit.wallet import Close, Closed, Deposit, Deposited, Wallet, Withdraw, wallets

DEPOSITED = EventData("wallet-deposited", 3, {"amount": 7, "currency": "EUR"})


async def stream(events: Events, name: str = "wallet-w1") -> list[Any]:
    return [event async for event in events.read(name)]


async def run_sql(engine: AsyncEngine, sql: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(sql))


async def outcome(handled: Awaitable[Any]) -> str | int:
    """The version after a command, or the class of its error."""
    try:
        version: int = (await handled).version
    except (SagaEngineError, Rejected) as error:
        return type(error).__name__
    return version


async def test_a_command_is_decided_on_the_state_and_its_events_are_appended(events: Events):
    first = await events.handle(wallets, "w1", Deposit(amount=7))
    second = await events.handle(wallets, "w1", Withdraw(amount=3))
    recorded = await stream(events)
    assert [event.type for event in recorded] == ["wallet-deposited", "wallet-withdrawn"]
    assert [first.position, second.position] == [event.position for event in recorded]
    assert (second.stream, second.version) == ("wallet-w1", 2)
    assert first.events == (Deposited(amount=7, currency="EUR"),)
    assert second.state == replay(wallets, recorded) == Wallet(balances={"EUR": 4}, notes=["-3"])


async def test_several_events_are_appended_together(events: Events):
    await events.handle(wallets, "w1", Deposit(amount=7))
    done = await events.handle(wallets, "w1", Close())
    assert (done.version, done.events[-1]) == (3, Closed())
    assert done.state.closed


async def test_a_rejected_command_appends_nothing(events: Events):
    with pytest.raises(Rejected) as caught:
        await events.handle(wallets, "w1", Withdraw(amount=7))
    assert caught.value.failure.code == "not_enough_money"
    assert await stream(events) == []


async def test_a_command_without_events_returns_the_position_of_the_last_one(events: Events):
    nothing = await events.handle(wallets, "w1", Deposit(amount=0))
    assert (nothing.version, nothing.position, nothing.events) == (0, 0, ())
    await events.handle(wallets, "w1", Deposit(amount=7))
    done = await events.handle(wallets, "w1", Deposit(amount=7))
    nothing = await events.handle(wallets, "w1", Deposit(amount=0))
    assert (nothing.version, nothing.position) == (2, done.position)


async def test_commands_at_the_same_time_are_decided_one_after_the_other(events: Events):
    await events.handle(wallets, "w1", Deposit(amount=5))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(outcome(events.handle(wallets, "w1", Withdraw(amount=1))))
            for _ in range(12)
        ]
    outcomes = [task.result() for task in tasks]
    assert outcomes.count("Rejected") == 7
    assert sorted(each for each in outcomes if each != "Rejected") == [2, 3, 4, 5, 6]
    assert replay(wallets, await stream(events)).balances == {"EUR": 0}


@pytest.mark.parametrize(("attempts", "expected"), [(1, "StoreLockTimeout"), (2, 2)])
async def test_a_command_is_decided_again_if_another_transaction_was_first(
    event_url: str, user_engine: AsyncEngine, attempts: int, expected: str | int
):
    settings = Settings(command_attempts=attempts)
    async with Events(event_url, settings=settings) as events, user_engine.connect() as other:
        await handle_in(other, wallets, "w1", Deposit(amount=7))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(outcome(events.handle(wallets, "w1", Deposit(amount=1))))
            await wait_for_waiting_append(event_url)
            await other.commit()
        assert task.result() == expected
        assert len(await stream(events)) == attempts


async def test_commands_for_one_busy_stream_are_all_decided(event_url: str):
    """A command that was too late twice would be so again and again, without an order of them."""
    settings = Settings(database_pool_size=25)
    async with Events(event_url, settings=settings) as events:

        async def deposit() -> None:
            for _ in range(3):
                await events.handle(wallets, "w1", Deposit(amount=1))

        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(deposit())
        assert len(await stream(events)) == 150


async def test_a_conflict_does_not_replay_a_long_stream_again():
    done = Handled(stream="wallet-w1", version=3, position=9, events=(), state=Wallet())
    first, second = LoadedAggregate(state=Wallet(), version=7), LoadedAggregate(state=Wallet())
    conflict = WrongVersion("wallet-w1", 20, 21)
    results: list[Exception | Handled] = [LongReplay(first), LongReplay(second), conflict, done]
    starts = []

    async def attempt(start: LoadedAggregate | None, conflicts: int) -> Handled:
        starts.append((start, conflicts))
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    assert await retry_conflicts(attempt, 2) is done
    assert starts == [(None, 0), (first, 0), (second, 0), (second, 1)]


async def test_in_the_transaction_of_the_caller_events_and_rows_are_committed_together(
    events: Events, user_engine: AsyncEngine
):
    await run_sql(user_engine, "CREATE TABLE visits (id text)")
    for commit in (False, True):
        async with user_engine.connect() as connection:
            await connection.execute(text("INSERT INTO visits VALUES ('w1')"))
            await handle_in(connection, wallets, "w1", Deposit(amount=7))
            done = await handle_in(connection, wallets, "w1", Withdraw(amount=3))
            assert (done.version, done.state.balances) == (2, {"EUR": 4})
            assert await stream(events) == []
            await (connection.commit() if commit else connection.rollback())
    async with user_engine.connect() as connection:
        rows = await connection.scalar(text("SELECT count(*) FROM visits"))
    assert (rows, len(await stream(events))) == (1, 2)


async def test_in_the_transaction_of_the_caller_a_conflict_is_raised_and_it_remains_usable(
    events: Events, user_engine: AsyncEngine, event_url: str
):
    async with user_engine.begin() as mine, user_engine.connect() as other:
        await handle_in(other, wallets, "w1", Deposit(amount=7))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(outcome(handle_in(mine, wallets, "w1", Deposit(amount=1))))
            await wait_for_waiting_append(event_url)
            await other.commit()
        assert task.result() == "WrongVersion"
        done = await handle_in(mine, wallets, "w1", Deposit(amount=1))
        assert (done.version, done.state.balances) == (2, {"EUR": 8})
    assert len(await stream(events)) == 2


async def test_a_connection_that_has_no_transaction_or_a_failed_one_is_refused(
    events: Events, user_engine: AsyncEngine
):
    engine = user_engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for amount in (1, 0):  # 0 causes no event
            with pytest.raises(InvalidInput, match="Your connection is in autocommit"):
                await handle_in(connection, wallets, "w1", Deposit(amount=amount))
    async with user_engine.connect() as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT 1/0"))
        with pytest.raises(InvalidInput, match="Your transaction has failed"):
            await handle_in(connection, wallets, "w1", Deposit(amount=1))
    assert await stream(events) == []


async def test_a_rejection_leaves_the_transaction_of_the_caller_usable(
    events: Events, user_engine: AsyncEngine
):
    async with user_engine.begin() as connection:
        assert await outcome(handle_in(connection, wallets, "w1", Withdraw(amount=1))) == "Rejected"
        await handle_in(connection, wallets, "w1", Deposit(amount=1))
    assert len(await stream(events)) == 1


async def test_events_carry_the_context_that_is_given_or_current(
    events: Events, user_engine: AsyncEngine
):
    await events.handle(wallets, "w1", Deposit(amount=1), context=MessageContext("request-1"))
    with handling(MessageContext("run-1", "command-1", "place-order")):
        await events.handle(wallets, "w1", Deposit(amount=1))
        async with user_engine.begin() as connection:
            await handle_in(connection, wallets, "w1", Deposit(amount=1))
            own = MessageContext(actor="mara")
            await handle_in(connection, wallets, "w1", Deposit(amount=1), context=own)
    recorded = await stream(events)
    assert [(e.correlation_id, e.causation_id, e.actor) for e in recorded] == [
        ("request-1", None, None),
        ("run-1", "command-1", "place-order"),
        ("run-1", "command-1", "place-order"),
        (None, None, "mara"),
    ]


@pytest.mark.parametrize("aggregate_id", ["", None, "x" * 255, "\0", "*", "w\n1"])
async def test_an_id_that_names_no_stream_is_refused(events: Events, aggregate_id):
    with pytest.raises(InvalidInput):
        await events.handle(wallets, aggregate_id, Deposit(amount=1))


async def test_what_is_not_an_aggregate_or_not_a_context_is_refused(
    events: Events, user_engine: AsyncEngine
):
    wallet: Any = "wallet"
    mara: Any = "mara"
    with pytest.raises(InvalidInput, match="The aggregate is of the class str"):
        await events.handle(wallet, "w1", Deposit(amount=1))
    with pytest.raises(InvalidInput, match="The context is of the class str"):
        await events.handle(wallets, "w1", Deposit(amount=1), context=mara)
    async with user_engine.begin() as connection:
        with pytest.raises(InvalidInput, match="The aggregate is of the class str"):
            await handle_in(connection, wallet, "w1", Deposit(amount=1))
    with pytest.raises(InvalidInput, match="The connection is a AsyncEngine"):
        await handle_in(user_engine, wallets, "w1", Deposit(amount=1))  # type: ignore[arg-type]


async def test_an_aggregate_that_breaks_a_rule_handles_no_command(events: Events):
    class Counted(BaseModel):
        pass

    def counted(wallet: Wallet, event: Any) -> Wallet:
        return wallet

    counted.__annotations__["event"] = Counted
    aggregate = Aggregate("count", state=Wallet)
    aggregate.event("counted", version=2)(counted)
    with pytest.raises(DefinitionError, match="nothing reads version 1"):
        await events.handle(aggregate, "c1", Counted())


async def test_an_event_that_is_too_large_is_refused(event_url: str):
    async with Events(event_url, settings=Settings(max_event_bytes=1024)) as events:
        with pytest.raises(InvalidInput, match="which max_event_bytes allows"):
            await events.handle(wallets, "w1", Deposit(amount=1, currency="x" * 1024))
        assert await stream(events) == []


async def test_an_event_of_newer_code_stops_only_the_calls_of_its_aggregate(events: Events):
    newer = EventData("wallet-deposited", 4, {"amount": 7})
    await events.append(Append("wallet-w1", [DEPOSITED, newer]))
    with pytest.raises(UnreadableEvent, match="knows up to 3") as caught:
        await events.handle(wallets, "w1", Deposit(amount=1))
    assert (caught.value.stream, caught.value.version) == ("wallet-w1", 2)
    assert (await events.handle(wallets, "w2", Deposit(amount=1))).version == 1


class PayOut(BaseModel):
    amount: int


@asynccontextmanager
async def paying_participant(engine: AsyncEngine) -> AsyncIterator[DirectExecutor]:
    """A participant whose handler runs a command of an aggregate in the barrier's transaction."""
    participant = Participant("wallets", database=engine)

    @participant.command("wallet.pay-out")
    async def pay_out(payload: PayOut, connection: AsyncConnection) -> None:
        await connection.execute(text("INSERT INTO payments VALUES (:n)"), {"n": payload.amount})
        await handle_in(connection, wallets, "w1", Withdraw(amount=payload.amount))

    await run_sql(engine, "CREATE TABLE payments (amount int)")
    database = ParticipantDatabase(engine, Settings())
    await database.prepare(create_barrier=True)
    yield DirectExecutor(SimpleNamespace(participant=participant), database, EventRecorder())
    await database.close()


async def test_a_step_of_a_saga_and_its_events_are_committed_together_and_once(
    events: Events, user_engine: AsyncEngine
):
    await events.handle(wallets, "w1", Deposit(amount=5))
    async with paying_participant(user_engine) as execute:
        paid = make_command(payload={"amount": 3}, name="wallet.pay-out")
        for _ in range(2):  # it is delivered again
            assert (await execute(paid))[0] is Outcome.SUCCEEDED
        _, withdrawn = await stream(events)
        assert (withdrawn.correlation_id, withdrawn.causation_id, withdrawn.actor) == (
            paid.run_id,
            paid.idempotency_key,
            "place-order",
        )
        too_much = make_command(payload={"amount": 3}, name="wallet.pay-out")
        outcome_of_step, body = await execute(too_much)
        assert (outcome_of_step, body["code"]) == (Outcome.REJECTED, "not_enough_money")
    assert len(await stream(events)) == 2
    async with user_engine.connect() as connection:
        assert await connection.scalar(text("SELECT array_agg(amount) FROM payments")) == [3]
