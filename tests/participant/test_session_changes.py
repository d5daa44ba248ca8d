"""What a handler changes of its transaction or session: it works, or fails with a reason."""

import pytest
from sqlalchemy import event, text

from saga_engine.postgres.session_changes import (
    ROLE_CHANGED_KEY,
    SESSION_CHANGED_KEY,
    STATE_CHANGED_KEY,
    record_changes,
)
from saga_engine.telemetry.events import DatabaseUnavailable, InternalErrorCaught
from saga_engine.vocabulary import Outcome
from tests.kit.payments_participant import (
    booking_rows,
    make_refund,
)
from tests.kit.tenant_participant import make_tenant_command, tenants

_CHARGE = text("INSERT INTO public.bookings VALUES (:o, 1)")


@pytest.fixture(params=["a URL", "an engine"])
async def executor(request, database_url):
    async with tenants(database_url, request.param) as executor:
        yield executor


@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL search_path = tenant",
        "SET LOCAL search_path = ''",
        "SET search_path = tenant",
        "SELECT set_config('search_path', 'tenant', true)",
        "SET LOCAL ROLE TENANT",
        "SET ROLE TENANT",
        "set local role to TENANT",
        "SELECT set_config('role', 'TENANT', true)",
        "SELECT set_config('role', 'TENANT', false)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET CONSTRAINTS ALL DEFERRED",
        "SAVEPOINT left_open",
        "nested",
    ],
)
async def test_a_handler_may_change_schema_and_role_without_affecting_others(executor, statement):
    asked = make_tenant_command(statement, executor=executor)
    for again in (asked, asked, make_tenant_command(executor=executor)):
        assert (await executor(again))[0] is Outcome.SUCCEEDED
    assert await booking_rows(executor.user_engine) == [("o-1", 1), ("o-1", 1)]
    first, second = executor.tenant.seen
    assert second == first
    assert not executor.events.matching(InternalErrorCaught)


@pytest.mark.parametrize(
    "statement",
    [
        "SET search_path = tenant",
        "SELECT 1; SET search_path = tenant",
        "SET ROLE TENANT",
        "SET LOCAL ROLE TENANT",
    ],
)
async def test_what_a_handler_changes_over_the_driver_does_not_affect_others(
    database_url, statement
):
    async with tenants(database_url, "a URL") as executor:
        asked = make_tenant_command(f"driver:{statement}", executor=executor)
        for again in (asked, make_tenant_command()):
            assert (await executor(again))[0] is Outcome.SUCCEEDED
        first, second = executor.tenant.seen
        assert second == first


async def test_a_role_that_changes_inside_a_function_costs_one_attempt_and_then_works(executor):
    async with executor.user_engine.begin() as tx:
        await tx.execute(
            text(
                "CREATE FUNCTION enter_tenant() RETURNS void LANGUAGE sql AS"
                f" $$ SELECT pg_catalog.set_config('role', '{executor.role}', true) $$"
            )
        )
    asked = make_tenant_command("SELECT enter_tenant()")
    outcome, body = await executor(asked)
    assert (outcome, body["code"]) == (Outcome.FAILED, "42501")
    assert (await executor(asked))[0] is Outcome.SUCCEEDED
    assert await booking_rows(executor.user_engine) == [("o-1", 1)]


@pytest.mark.parametrize(
    ("statements", "code", "kept"),
    [
        (["COMMIT"], "transaction_ended", 1),
        (["COMMIT", "BEGIN"], "transaction_ended", 1),
        (["ROLLBACK"], "transaction_ended", 0),
        (["ROLLBACK", "BEGIN"], "transaction_ended", 0),
        (["close"], "transaction_ended", 0),
        (["swallow"], "transaction_failed", 0),
        (["SET TRANSACTION READ ONLY"], "transaction_read_only", 0),
        (["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"], "25001", 0),
        (["SELECT 1/0"], "22012", 0),
    ],
)
async def test_a_handler_that_ends_or_breaks_its_transaction_fails_with_a_reason(
    executor, statements, code, kept
):
    outcome, body = await executor(make_tenant_command(*statements))
    assert (outcome, body["code"]) == (Outcome.FAILED, code)
    assert len(body["message"]) > 10
    assert (await executor(make_tenant_command()))[0] is Outcome.SUCCEEDED
    assert await booking_rows(executor.user_engine) == [("o-1", 1)] * (1 + kept)
    assert not executor.events.matching(InternalErrorCaught)


async def test_a_connection_that_a_handler_cuts_fails_its_own_command_only(executor):
    outcome, _ = await executor(make_tenant_command("terminate"))
    assert outcome is Outcome.FAILED
    assert (await executor(make_tenant_command()))[0] is Outcome.SUCCEEDED
    assert await booking_rows(executor.user_engine) == [("o-1", 1)]


async def test_a_compensation_may_change_its_role_too(executor):
    charge = make_tenant_command()
    assert (await executor(charge))[0] is Outcome.SUCCEEDED
    refund = make_refund(charge)
    refund.payload["statements"] = [f"SET LOCAL ROLE {executor.role}"]
    assert (await executor(refund))[0] is Outcome.SUCCEEDED
    assert await booking_rows(executor.user_engine) == []


_DEALLOCATE_UNSEEN = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"


async def test_prepared_statements_that_a_handler_drops_fail_no_later_command(executor):
    for again in (make_tenant_command(), make_tenant_command("DEALLOCATE ALL")):
        await executor(again)
    assert (await executor(make_tenant_command()))[0] is Outcome.SUCCEEDED


@pytest.mark.parametrize("later", [[], ["SELECT 1"]])
async def test_prepared_statements_that_were_dropped_unseen_fail_one_command(executor, later):
    for again in (make_tenant_command("SELECT 1"), make_tenant_command("SELECT 1")):
        assert (await executor(again))[0] is Outcome.SUCCEEDED
    outcome, body = await executor(make_tenant_command(_DEALLOCATE_UNSEEN, *later))
    assert (outcome, body["code"]) == (Outcome.FAILED, "26000")
    assert (await executor(make_tenant_command()))[0] is Outcome.SUCCEEDED


@pytest.mark.parametrize("given", ["a URL", "an engine"])
async def test_an_ordinary_command_costs_no_round_trip_for_roles(database_url, given):
    async with tenants(database_url, given) as executor:
        statements = []
        event.listen(
            executor.database._engine.sync_engine,
            "before_cursor_execute",
            lambda _connection, _cursor, statement, *_: statements.append(statement),
        )
        assert (await executor(make_tenant_command()))[0] is Outcome.SUCCEEDED
        of_the_handler = ["AS role", "INTO public.bookings"]  # a URL: the driver executes the rest
        expected = (
            ["current_setting('role') FROM", "WITH lock", *of_the_handler, "UPDATE"]
            if given == "an engine"
            else of_the_handler
        )
        assert len(statements) == len(expected)
        for part, statement in zip(expected, statements, strict=True):
            assert part in statement


async def test_a_missing_barrier_is_reported_without_the_advice_for_the_engines_tables(executor):
    async with executor.user_engine.begin() as tx:
        await tx.execute(text("DROP TABLE saga_barrier"))
    outcome, body = await executor(make_tenant_command())
    assert (outcome, body["code"]) == (Outcome.FAILED, "42P01")
    (trouble,) = executor.events.matching(DatabaseUnavailable)
    assert "migrate" not in trouble.problem


def changes_of(sql, *, is_script=False):
    info: dict[str, bool] = {}
    record_changes(info, sql, is_script=is_script)
    return info


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        ("SET search_path = tenant", True),
        ("/* app */ SET search_path = tenant", True),
        ("-- who asks\nSET ROLE tenant", True),
        ("SELECT 1; /* then */ set search_path = t", True),
        ("SELECT '--'; SET search_path = t", True),
        ("SELECT '--'; /* then */ SET search_path = t", True),
        ("SELECT '--', set_config('search_path', 't', false)", True),
        ("SELECT set_config('search_path', 't', false)", True),
        ("SELECT set_config('search_path', coalesce('t', 'u'), false)", True),
        ("SELECT set_config('search_path', ', true)', false)", True),
        ("SELECT pg_catalog.\"set_config\"('search_path', 't', false)", True),
        ("UPDATE pg_settings SET setting = 't' WHERE name = $1", True),
        ("UPDATE pg_catalog.\"pg_settings\" SET setting = 't' WHERE name = $1", True),
        ("SET  LOCAL search_path = tenant", False),
        ("SET LOCAL search_path = tenant", False),
        ("/* app */ SET LOCAL search_path = tenant", False),
        ("SELECT set_config('search_path', 't', true)", False),
        ("SELECT set_config('search_path', coalesce('t', 'u'), true)", False),
        ("SELECT set_config('a.b', %(milliseconds)s, true)", False),
        ("SELECT setting FROM pg_settings", False),
        ("UPDATE t SET role = 'x'", False),
        ("CREATE TEMP TABLE orders (id text)", True),
        ("CREATE OR REPLACE TEMP VIEW orders AS SELECT 1", True),
        ("CREATE LOCAL TEMPORARY TABLE orders (id text) ON COMMIT DELETE ROWS", True),
        ("CREATE TABLE pg_temp.orders (id text)", True),
        ('CREATE TABLE IF NOT EXISTS "pg_temp".orders (id text)', True),
        ("SELECT 1 AS n INTO TEMP orders", True),
        ("SELECT 1 AS n INTO pg_temp.orders", True),
        ("CREATE TEMP TABLE a (); CREATE TEMP TABLE b () ON COMMIT DROP", True),
        ("CREATE TEMP TABLE orders (id text) ON COMMIT DROP", False),
        ("INSERT INTO pg_temp.orders VALUES (1)", False),
        ("CREATE TABLE temp (id text)", False),
        ("PREPARE plan AS SELECT 1", True),
        ("DEALLOCATE ALL", True),
        ("/* all */ deallocate plan", True),
        ("LISTEN orders", True),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", True),
        ("DECLARE c CURSOR FOR SELECT 1", False),
        ("SELECT pg_advisory_lock(1)", True),
        ("SELECT pg_try_advisory_lock_shared(1)", True),
        ("SELECT pg_advisory_xact_lock(1)", False),
    ],
)
def test_a_change_that_outlives_its_transaction_is_detected(statement, changes):
    assert (SESSION_CHANGED_KEY in changes_of(statement)) is changes


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        ("SET LOCAL search_path = tenant", True),
        ("/* who */ set role tenant", True),
        ("SELECT '/*'; SET LOCAL search_path = t; SELECT '*/'", True),
        ("RESET ROLE", True),
        ("SELECT set_config('search_path', 't', true)", True),
        ("SELECT \"set_config\"('search_path', 't', true)", True),
        ("UPDATE pg_settings SET setting = 't'", True),
        ("DO $$ BEGIN PERFORM 1; END $$", True),
        ("CALL enter_tenant()", True),
        ("CREATE TEMP TABLE orders (id text) ON COMMIT DROP", True),
        ("CREATE TABLE pg_temp.orders (id text) ON COMMIT DROP", True),
        ("SELECT 1 AS n INTO TEMPORARY orders", True),
        ("DECLARE c CURSOR FOR SELECT 1", True),
        ("PREPARE plan AS SELECT 1", True),
        ("DEALLOCATE ALL", True),
        ("UPDATE t SET x = 1", False),
        ("SELECT offset_config FROM t", False),
        ("INSERT INTO t VALUES ('; set')", True),  # too many, not too few
    ],
)
def test_a_change_that_a_later_statement_of_the_transaction_sees_is_detected(statement, changes):
    assert (STATE_CHANGED_KEY in changes_of(statement)) is changes


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        ("SET LOCAL ROLE tenant", True),
        ("SELECT '--'; SET LOCAL ROLE tenant", True),
        ('SET LOCAL "role" TO tenant', True),
        ("UPDATE pg_settings SET setting = 'tenant' WHERE name = $1", True),
        ("SET LOCAL search_path = tenant", False),
    ],
)
def test_a_change_of_the_role_is_detected(statement, changes):
    assert (ROLE_CHANGED_KEY in changes_of(statement)) is changes


def test_a_long_script_is_searched_to_its_end():
    long_script = f"{'INSERT INTO t VALUES (1);' * 1000} SET search_path = tenant"
    assert SESSION_CHANGED_KEY in changes_of(long_script, is_script=True)
