"""What a handler changes of its transaction or session: it works, or fails with a reason."""

from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from saga_engine.errors import ConfigurationError
from saga_engine.participant import Participant, barrier
from saga_engine.participant.database import (
    ParticipantDatabase,
)
from saga_engine.participant.session_changes import SESSION_CHANGED_KEY, track_session_changes
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable, InternalErrorCaught
from saga_engine.vocabulary import Outcome
from tests.kit.payments_participant import (
    DirectExecutor,
    EventList,
    booking_rows,
    bookings_engine,
    make_command,
    make_refund,
)


class TenantCommand(BaseModel):
    order_id: str
    statements: list[str] = []


class TenantExecutor(DirectExecutor):
    """A executor of a tenant, and what stands behind it."""

    role: str
    tenant: "TenantParticipant"
    user_engine: AsyncEngine
    database: ParticipantDatabase


class TenantParticipant:
    """A participant whose handler writes a booking and runs the statements of the command."""

    def __init__(self, database):
        self.participant = Participant("payments", database=database)
        self.seen: list[Any] = []

        async def charge(asked: TenantCommand, tx: AsyncConnection) -> str:
            self.seen.append((await tx.execute(_SESSION)).one())
            await tx.execute(
                text("INSERT INTO public.bookings VALUES (:o, 1)"), {"o": asked.order_id}
            )
            for statement in asked.statements:
                await self.run(statement, tx)
            return "charged"

        async def refund(asked: TenantCommand, tx: AsyncConnection) -> None:
            await tx.execute(text("DELETE FROM public.bookings"))
            for statement in asked.statements:
                await self.run(statement, tx)

        self.participant.command("payment.charge")(charge)
        self.participant.compensation("payment.refund", of="payment.charge")(refund)

    async def run(self, statement, tx):
        if statement == "close":
            await tx.close()
        elif statement == "terminate":
            (await tx.get_raw_connection()).driver_connection.terminate()
        elif statement == "nested":
            await tx.begin_nested()
        elif statement == "swallow":
            try:
                await tx.execute(text("SELECT 1/0"))
            except Exception:  # noqa: BLE001 - as a careless handler does
                return
        else:
            await tx.execute(text(statement))


_CHARGE = text("INSERT INTO public.bookings VALUES (:o, 1)")
_SESSION = text(
    "SELECT current_setting('role') AS role, current_setting('search_path') AS path,"
    " current_setting('default_transaction_read_only') AS read_only"
)


@asynccontextmanager
async def tenants(database_url, given, **settings):
    """A database with the schema and the role of a tenant, and a participant's executor on it."""
    async with bookings_engine(database_url) as user_engine:
        role = f"tenant_{make_url(database_url).database}"
        async with user_engine.begin() as tx:
            for statement in (
                "CREATE SCHEMA tenant",
                f"CREATE ROLE {role}",
                f"GRANT USAGE ON SCHEMA tenant TO {role}",
                f"GRANT SELECT, INSERT ON bookings TO {role}",
            ):
                await tx.execute(text(statement))
        engine = create_async_engine(database_url, pool_size=1, max_overflow=0)
        database = ParticipantDatabase(
            database_url if given == "a URL" else engine, Settings(participant_concurrency=1)
        )
        await database.prepare(create_barrier=True, **settings)
        tenant = TenantParticipant(database_url)
        executor = TenantExecutor(tenant, database, EventList())
        executor.role, executor.tenant, executor.user_engine, executor.database = (
            role,
            tenant,
            user_engine,
            database,
        )
        try:
            yield executor
        finally:
            await database.close()
            await engine.dispose()
            async with user_engine.begin() as tx:
                await tx.execute(text(f"DROP OWNED BY {role}"))
                await tx.execute(text(f"DROP ROLE {role}"))


@pytest.fixture(params=["a URL", "an engine"])
async def executor(request, database_url):
    async with tenants(database_url, request.param) as executor:
        yield executor


def make_tenant_command(*statements, executor=None):
    named = (
        [each.replace("TENANT", executor.role) for each in statements]
        if executor
        else [*statements]
    )
    return make_command(payload={"order_id": "o-1", "statements": named})


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
    assert not executor.events.of_type(InternalErrorCaught)


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
    assert not executor.events.of_type(InternalErrorCaught)


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


async def test_the_barrier_may_be_in_a_schema_that_the_search_path_does_not_name(database_url):
    async with tenants(database_url, "a URL", schema="tenant") as executor:
        asked = make_tenant_command()
        first, second = await executor(asked), await executor(asked)
        assert first == second
        assert await booking_rows(executor.user_engine) == [("o-1", 1)]
        async with executor.user_engine.connect() as tx:
            assert await barrier.find_schema(tx) is None
            assert await barrier.find_schema(tx, "tenant") == "tenant"


async def test_an_empty_search_path_is_reported_with_a_fix_that_works(database_url):
    engine = create_async_engine(
        database_url, connect_args={"server_settings": {"search_path": ""}}
    )
    database = ParticipantDatabase(engine, Settings())
    for create in (True, False):
        with pytest.raises(ConfigurationError) as found:
            await database.prepare(create_barrier=create)
        assert "search_path" in str(found.value)
        assert "barrier_schema" in str(found.value)
        assert "saga-engine migrate" not in str(found.value)
    await database.prepare(create_barrier=True, schema="public")
    with pytest.raises(ConfigurationError, match="schema nowhere does not exist"):
        await database.prepare(create_barrier=True, schema="nowhere")
    await database.close()
    await engine.dispose()


@pytest.mark.parametrize("where", ["role", "database", "session"])
async def test_a_database_that_may_lose_commits_is_refused_at_start(database_url, where):
    engine = create_async_engine(database_url)
    name, user = make_url(database_url).database, make_url(database_url).username
    settings, undo = {}, None
    if where == "session":
        settings = {"server_settings": {"synchronous_commit": "off"}}
    else:
        whom = f"DATABASE {name}" if where == "database" else f"ROLE {user} IN DATABASE {name}"
        async with engine.begin() as tx:
            await tx.execute(text(f"ALTER {whom} SET synchronous_commit = off"))
        undo = f"ALTER {whom} RESET synchronous_commit"
    theirs = create_async_engine(database_url, connect_args=settings)
    for given in (theirs,) if where == "session" else (theirs, database_url):
        database = ParticipantDatabase(given, Settings())
        with pytest.raises(ConfigurationError, match="synchronous_commit is off"):
            await database.prepare(create_barrier=True)
        await database.close()
    await theirs.dispose()
    if undo:
        async with engine.begin() as tx:
            await tx.execute(text(undo))
    await engine.dispose()


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
        ours = ["current_setting('role') FROM"] if given == "an engine" else []
        expected = [*ours, "WITH lock", "AS role", "INTO public.bookings", "UPDATE"]
        assert len(statements) == len(expected)
        for part, statement in zip(expected, statements, strict=True):
            assert part in statement


async def test_a_missing_barrier_is_reported_without_the_advice_for_the_engines_tables(executor):
    async with executor.user_engine.begin() as tx:
        await tx.execute(text("DROP TABLE saga_barrier"))
    outcome, body = await executor(make_tenant_command())
    assert (outcome, body["code"]) == (Outcome.FAILED, "42P01")
    (trouble,) = executor.events.of_type(DatabaseUnavailable)
    assert "migrate" not in trouble.problem


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        ("SET search_path = tenant", True),
        ("/* app */ SET search_path = tenant", True),
        ("-- who asks\nSET ROLE tenant", True),
        ("SELECT 1; /* then */ set search_path = t", True),
        ("SELECT set_config('search_path', 't', false)", True),
        ("SELECT set_config('search_path', coalesce('t', 'u'), false)", True),
        ("SET LOCAL search_path = tenant", False),
        ("/* app */ SET LOCAL search_path = tenant", False),
        ("SELECT set_config('search_path', 't', true)", False),
        ("SELECT set_config('search_path', coalesce('t', 'u'), true)", False),
        ("SELECT set_config('a.b', %(milliseconds)s, true)", False),
        ("UPDATE t SET role = 'x'", False),
    ],
)
def test_a_change_that_outlives_its_transaction_is_detected(statement, changes):
    connection: Any = SimpleNamespace(info={})
    track_session_changes(connection, None, statement)
    assert bool(connection.info.get(SESSION_CHANGED_KEY)) is changes
