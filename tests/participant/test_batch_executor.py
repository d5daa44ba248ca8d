"""The commands of a batch share a transaction; what one of them does reaches no other."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.participant import Rejected
from saga_engine.participant.outage import OutageMonitor
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable, HandlerFailed, HandlerFinished
from saga_engine.vocabulary import Outcome
from tests.kit.batches import BatchRunner, batch_runner
from tests.kit.misbehaving_participant import (
    HOLD,
    SHORT,
    HandlerChoice,
    MisbehavingParticipant,
    UncancellableParticipant,
)
from tests.kit.payments_participant import (
    PaymentsParticipant,
    booking_rows,
    make_command,
    make_refund,
)
from tests.kit.programs import sleep
from tests.kit.tenant_participant import TenantParticipant

OK = "succeeded"


def charge(order, card="ok"):
    return make_command(payload={"order_id": order, "card": card})


@pytest.fixture
async def runner(database_url, user_engine):
    assert await booking_rows(user_engine) == []
    async with batch_runner(PaymentsParticipant(database_url), database_url) as runner:
        yield runner


async def barrier_rows(engine):
    """The outcome of each command in the table of the barrier, sorted."""
    async with engine.connect() as tx:
        return sorted((await tx.scalars(text("SELECT outcome FROM saga_barrier"))).all())


async def test_the_commands_of_a_batch_share_one_transaction(database_url, user_engine):
    transactions = set()

    async def handle(_: HandlerChoice, tx: AsyncConnection) -> None:
        transactions.add(await tx.scalar(text("SELECT pg_current_xact_id()::text")))

    participant = MisbehavingParticipant(handle, database_url)
    async with batch_runner(participant, database_url) as runner:
        assert await runner.outcomes(*(make_command() for _ in range(5))) == [OK] * 5
    assert len(transactions) == 1
    assert await barrier_rows(user_engine) == [OK] * 5


async def test_a_rejection_and_a_failure_roll_back_their_own_effects_only(runner, user_engine):
    commands = [
        charge("o-1"),
        charge("o-2", "declined"),
        charge("o-3", "unsure"),
        charge("o-4", "broken"),
        charge("o-5"),
    ]
    assert await runner.outcomes(*commands) == [OK, "rejected", "failed", "failed", OK]
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-5", 1)]
    assert await barrier_rows(user_engine) == ["rejected", OK, OK]
    assert [each.code for each in runner.events.matching(HandlerFailed)] == ["OSError"]
    assert len(runner.events.matching(HandlerFinished)) == 5
    runner.payments.rejects = False
    assert await runner.outcomes(commands[1], commands[2]) == ["alone", OK]
    assert (await runner.alone(commands[1]))[0] == "rejected"
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-3", 1), ("o-5", 1)]


async def test_only_the_first_of_many_failures_calls_other_handlers_twice(runner, user_engine):
    assert await runner.outcomes(charge("o-1"), charge("o-2", "declined")) == [OK, "rejected"]
    assert len(runner.payments.calls) == 4
    assert await runner.outcomes(charge("o-3"), charge("o-4", "declined")) == [OK, "rejected"]
    assert len(runner.payments.calls) == 6
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-3", 1)]


async def test_a_command_that_was_executed_gets_its_first_reply(runner, user_engine):
    first, second = charge("o-1"), charge("o-2")
    (result,) = await runner.execute(first)
    again = replace(first, attempt=2)
    assert await runner.outcomes(again, second) == ["alone", OK]
    assert await runner.alone(again) == (OK, {"charge_id": "o-1-1"})
    assert result.outcome is Outcome.SUCCEEDED
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-2", 1)]


async def test_a_command_that_is_twice_in_a_batch_has_one_effect(runner, user_engine):
    command = charge("o-1")
    assert await runner.outcomes(command, command, make_refund(command)) == [OK, "alone", "alone"]
    assert (await runner.alone(command))[0] == OK
    assert await booking_rows(user_engine) == [("o-1", 1)]


async def test_a_compensation_is_called_once_and_only_for_an_action_that_succeeded(
    runner, user_engine
):
    done, declined, never = charge("o-1"), charge("o-2", "declined"), charge("o-3")
    await runner.outcomes(done, declined)
    refunds = [make_refund(each) for each in (done, declined, never)]
    assert await runner.outcomes(*refunds) == [OK, "alone", "alone"]
    for each in refunds[1:]:
        assert await runner.alone(each) == (OK, None)
    assert runner.payments.calls.count("refund") == 1
    assert await runner.outcomes(never) == ["alone"]
    outcome, body = await runner.alone(never)
    assert (outcome, body["code"]) == ("rejected", "compensated")
    assert await runner.outcomes(refunds[0]) == ["alone"]
    assert await booking_rows(user_engine) == [("o-1", -1), ("o-1", 1)]


async def test_a_command_in_progress_elsewhere_is_left_out(runner, user_engine):
    held, other = charge("o-1"), charge("o-2")
    async with runner.database.transaction() as tx:
        assert await tx.barrier.claim(held)
        assert await runner.outcomes(held, make_refund(held), other) == ["alone", "alone", OK]
        assert await tx.barrier.reclaim(held) is False
    assert await booking_rows(user_engine) == [("o-2", 1)]


async def test_a_batch_that_is_cut_off_has_no_effect_and_is_executed_again(runner, user_engine):
    commands = [charge("o-1"), charge("o-2", "slow"), charge("o-3")]
    executing = asyncio.ensure_future(runner.execute(*commands))
    await runner.payments.entered.wait()
    executing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await executing
    assert await booking_rows(user_engine) == []
    runner.payments.may_finish.set()
    assert await runner.outcomes(*commands) == [OK] * 3
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-2", 1), ("o-3", 1)]


async def test_a_handler_that_exceeds_its_timeout_fails_alone(database_url, user_engine):
    payments = PaymentsParticipant(database_url)
    commands = [charge("o-1"), charge("o-2", "slow"), charge("o-3")]
    async with batch_runner(payments, database_url, **SHORT) as runner:
        assert await runner.outcomes(*commands) == ["alone", "failed", "alone"]
        assert await booking_rows(user_engine) == []
        for each in (commands[0], commands[2]):
            assert (await runner.alone(each))[0] == OK
        payments.may_finish.set()
        assert (await runner.alone(commands[1]))[0] == OK
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-2", 1), ("o-3", 1)]


async def test_a_handler_that_ignores_its_timeout_cannot_commit(database_url, user_engine):
    payments = UncancellableParticipant(database_url)
    async with batch_runner(payments, database_url, **SHORT) as runner:
        (result,) = await runner.execute(make_command(payload=HOLD))
        assert b"timeout" in result.body
        assert result.abandoned_task is not None
        payments.may_finish.set()
        await asyncio.wait([result.abandoned_task])
        assert await booking_rows(user_engine) == []
        assert await runner.outcomes(make_command()) == [OK]


class LosingDatabase:
    """A database whose response to the COMMIT of a batch is lost."""

    def __init__(self, database):
        self._database = database
        self.transaction = database.transaction

    @asynccontextmanager
    async def shared_transaction(self):
        async with self._database.shared_transaction() as tx:
            yield tx
        raise ConnectionResetError


async def test_commands_whose_commit_has_no_response_are_not_executed_again(runner, user_engine):
    commands = [charge("o-1"), charge("o-2", "declined"), charge("o-3")]
    runner.executor.enable_batches(LosingDatabase(runner.database))
    assert await runner.outcomes(*commands) == ["alone"] * 3
    outcomes = [(await runner.alone(each))[0] for each in commands]
    assert outcomes == [OK, "rejected", OK]
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-3", 1)]


async def test_an_unavailable_database_fails_no_command(runner, postgres, user_engine):
    monitor = OutageMonitor(runner.database, 0.1, runner.events)
    runner = BatchRunner(runner.payments, runner.database, Settings())
    runner.executor.outage_monitor = monitor
    runner.executor.enable_batches(runner.database)
    await user_engine.dispose()
    await runner.database.close()
    name = user_engine.url.database
    await postgres.drop_database(name)
    assert await runner.outcomes(charge("o-1"), charge("o-2")) == ["alone", "alone"]
    assert runner.executor.is_database_unavailable
    assert monitor.problem
    await postgres.create_database(name)


async def test_a_batch_ends_after_its_time_and_leaves_no_claim(database_url, user_engine):
    async def handle(_: HandlerChoice, tx: AsyncConnection) -> None:
        await sleep(0.01)
        await tx.execute(text("INSERT INTO bookings VALUES ('o-1', 1)"))

    participant = MisbehavingParticipant(handle, database_url)
    commands = [make_command() for _ in range(3)]
    async with batch_runner(participant, database_url, participant_batch_duration=0.002) as runner:
        assert await runner.outcomes(*commands) == [OK, "later", "later"]
        assert await barrier_rows(user_engine) == [OK]
        assert runner.executor.batch_executor.max_size < 50
        assert await runner.outcomes(*commands[1:]) == [OK, "later"]
    assert len(await booking_rows(user_engine)) == 2


def tenant_command(order, *statements):
    return make_command(payload={"order_id": order, "statements": [*statements]})


@pytest.fixture
async def tenants(database_url, user_engine):
    async with user_engine.begin() as tx:
        await tx.execute(text("CREATE SCHEMA tenant"))
    async with batch_runner(TenantParticipant(database_url), database_url) as runner:
        yield runner


@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL search_path = tenant",
        "SELECT set_config('search_path', 'tenant', true)",
        "SELECT '--', \"set_config\"('search_path', 'tenant', true)",
        "UPDATE pg_settings SET setting = 'tenant' WHERE name = 'search_path'",
        "driver:SET LOCAL search_path = tenant",
        "driver:SET search_path = tenant",
    ],
)
async def test_a_setting_of_a_handler_does_not_reach_the_next_one(tenants, user_engine, statement):
    first, second = tenant_command("o-1", statement), tenant_command("o-2")
    assert await tenants.outcomes(first, second) == [OK, "later"]
    assert await tenants.outcomes(second) == [OK]
    seen_first, seen_second = tenants.payments.seen
    assert seen_second == seen_first
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-2", 1)]


RECORD_AT_COMMIT = (
    "CREATE TABLE commits (order_id text, synchronous_commit text)",
    """
    CREATE FUNCTION record_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO commits VALUES (NEW.order_id, current_setting('synchronous_commit'));
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON bookings DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION record_commit()
    """,
)


@pytest.mark.parametrize("savepoints", [False, True])
async def test_a_setting_of_a_handler_does_not_apply_to_the_commit_of_others(
    tenants, user_engine, savepoints
):
    async with user_engine.begin() as tx:
        for statement in RECORD_AT_COMMIT:
            await tx.execute(text(statement))
    if savepoints:
        await tenants.outcomes(tenant_command("o-0", "swallow"))
    asynchronous = "SET LOCAL synchronous_commit = off"
    commands = [tenant_command("o-1"), tenant_command("o-2", asynchronous), tenant_command("o-3")]
    assert await tenants.outcomes(*commands) == [OK, "later", "later"]
    assert await tenants.outcomes(*commands[1:]) == [OK, "later"]
    assert await tenants.outcomes(*commands[2:]) == [OK]
    async with user_engine.connect() as tx:
        commits = (await tx.execute(text("SELECT * FROM commits ORDER BY 1"))).all()
    assert [tuple(each) for each in commits] == [("o-1", "on"), ("o-2", "off"), ("o-3", "on")]


async def test_a_handler_does_not_find_the_temporary_table_of_another_one(
    database_url, user_engine
):
    async def handle(asked: HandlerChoice, tx: AsyncConnection) -> None:
        for statement in (
            "CREATE TEMP TABLE IF NOT EXISTS scratch (order_id text) ON COMMIT DROP",
            f"INSERT INTO scratch VALUES ('{asked.order_id}')",
            "INSERT INTO bookings SELECT order_id, 1 FROM scratch",
        ):
            await tx.execute(text(statement))

    first, second = charge("o-1"), charge("o-2")
    async with batch_runner(MisbehavingParticipant(handle, database_url), database_url) as runner:
        assert await runner.outcomes(first, second) == [OK, "later"]
        assert await runner.outcomes(second) == [OK]
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-2", 1)]


async def test_a_session_that_has_lost_a_prepared_statement_executes_no_other_batch(tenants):
    assert await tenants.outcomes(tenant_command("o-1", "SELECT 1")) == [OK]
    drop = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"
    assert await tenants.outcomes(tenant_command("o-2", drop, "SELECT 1")) == [OK]


async def test_the_role_of_a_handler_does_not_record_the_results(tenants, user_engine):
    async with user_engine.begin() as tx:
        for statement in ("CREATE ROLE poor_tenant", "GRANT USAGE ON SCHEMA public TO poor_tenant"):
            await tx.execute(text(statement))
    try:
        first = tenant_command("o-1", "SET LOCAL ROLE poor_tenant")
        assert await tenants.outcomes(first) == [OK]
    finally:
        async with user_engine.begin() as tx:
            await tx.execute(text("DROP OWNED BY poor_tenant"))
            await tx.execute(text("DROP ROLE poor_tenant"))


@pytest.mark.parametrize("statement", ["SELECT 1/0", "swallow", "SELECT * FROM missing"])
async def test_a_statement_that_the_database_refuses_fails_its_own_command_only(
    tenants, user_engine, statement
):
    commands = [tenant_command("o-1"), tenant_command("o-2", statement), tenant_command("o-3")]
    assert await tenants.outcomes(*commands) == [OK, "alone", OK]
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-3", 1)]
    assert (await tenants.alone(commands[1]))[0] == "failed"
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-3", 1)]


@pytest.mark.parametrize(
    ("statement", "outcome"),
    [
        ("COMMIT", "failed"),
        ("/* */ rollback", "failed"),
        ("close", "failed"),
        ("terminate", "failed"),
        ("SET TRANSACTION READ ONLY", "failed"),
        ("RELEASE SAVEPOINT saga_command", "failed"),
        ("nested", OK),
    ],
)
async def test_a_handler_that_breaks_the_transaction_breaks_no_other_command(
    tenants, user_engine, statement, outcome
):
    commands = [tenant_command("o-1"), tenant_command("o-2", statement), tenant_command("o-3")]
    results = await tenants.outcomes(*commands)
    for command, result in zip(commands, results, strict=True):
        expected = outcome if command is commands[1] else OK
        final = (await tenants.alone(command))[0] if result in ("alone", "later") else result
        assert final == expected
        assert (await tenants.alone(commands[0]))[0] == OK
    rows = await booking_rows(user_engine)
    assert rows.count(("o-1", 1)) == rows.count(("o-3", 1)) == 1
    assert (await tenants.outcomes(tenant_command("o-4"))) == [OK]


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
async def test_an_end_that_an_earlier_command_has_prepared_breaks_no_other_command(
    tenants, user_engine, ending
):
    earlier = tenant_command("o-0", ending, "BEGIN", "SELECT 1/0")
    assert (await tenants.alone(earlier))[0] == "failed"
    kept = [("o-0", 1)] if ending == "COMMIT" else []
    commands = [tenant_command("o-1"), tenant_command("o-2", ending), tenant_command("o-3")]
    assert await tenants.outcomes(*commands) == ["alone"] * 3
    assert await booking_rows(user_engine) == kept
    assert [(await tenants.alone(each))[0] for each in commands] == [OK, "failed", OK]
    rows = await booking_rows(user_engine)
    assert rows.count(("o-1", 1)) == rows.count(("o-3", 1)) == 1


async def test_handlers_that_cannot_share_a_transaction_succeed_alone(database_url, user_engine):
    async with user_engine.begin() as tx:
        await tx.execute(
            text(
                "CREATE FUNCTION make_scratch() RETURNS void LANGUAGE sql AS"
                " 'CREATE TEMP TABLE scratch () ON COMMIT DROP'"
            )
        )

    async def handle(asked: HandlerChoice, tx: AsyncConnection) -> None:
        await tx.execute(text("SELECT make_scratch()"))
        await tx.execute(text("INSERT INTO bookings VALUES (:o, 1)"), {"o": asked.order_id})

    participant = MisbehavingParticipant(handle, database_url)
    first, second = charge("o-1"), charge("o-2")
    async with batch_runner(participant, database_url) as runner:
        assert await runner.outcomes(first, second) == [OK, "alone"]
        assert (await runner.alone(second))[0] == OK
    assert await booking_rows(user_engine) == [("o-1", 1), ("o-2", 1)]


async def test_handlers_without_a_connection_are_executed_in_a_batch_too(database_url, user_engine):
    async def handle(asked: HandlerChoice) -> str:
        if asked.card == "declined":
            raise Rejected("declined", "It was declined.")
        return asked.order_id

    participant = MisbehavingParticipant(handle, database_url)
    declined = charge("o-2", "declined")
    async with batch_runner(participant, database_url) as runner:
        assert await runner.outcomes(charge("o-1"), declined) == [OK, "rejected"]
        assert not runner.events.matching(DatabaseUnavailable)
    assert await barrier_rows(user_engine) == ["rejected", OK]
