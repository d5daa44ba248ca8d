import asyncio
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
import sqlalchemy
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.embedded.server_process import free_port
from saga_engine.errors import (
    ConfigurationError,
    NotFound,
    SchemaMismatch,
    StoreRefused,
    StoreUnavailable,
)
from saga_engine.postgres import pgbouncer
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from saga_engine.store.database import Database, SqlAlchemyTransaction
from tests.kit.servers import running_postgres

PID = text("SELECT pg_backend_pid()")
IDLE = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND state LIKE 'idle in transaction%'"
)


async def enter(url: str, **settings: float) -> None:
    async with Database(url, Settings(**settings)):
        pass


async def test_a_transaction_is_committed_only_if_its_block_ends(database: Database):
    make = (
        "INSERT INTO saga_engine.audit (id, operator, action, reason)"
        " VALUES (gen_random_uuid(), {})"
    )
    async with database.transaction() as tx:
        await tx.execute(text(make.format("'a', 'kept', ''")))

    async def fail() -> None:
        async with database.transaction() as tx:
            await tx.execute(text(make.format("'a', 'undone', ''")))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with database.transaction() as tx:
        assert list((await tx.execute(text("SELECT action FROM saga_engine.audit"))).scalars()) == [
            "kept"
        ]


async def test_the_error_for_an_unreachable_host_has_no_password():
    port = free_port()
    url = f"postgresql+asyncpg://me:hunter2@127.0.0.1:{port}/db"
    with pytest.raises(
        StoreUnavailable, match=rf"me@127.0.0.1:{port}/db cannot be reached"
    ) as seen:
        await enter(url)
    assert "hunter2" not in str(seen.value)
    assert seen.value.__cause__ is None


async def test_a_host_that_does_not_resolve_is_unavailable():
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await enter("postgresql+asyncpg://me@no-such-host.invalid/db")


@pytest.mark.parametrize("url", ["nonsense", "postgresql://me@host/db", "mysql://x", ""])
async def test_the_error_for_an_invalid_url_shows_the_form_of_a_url(url: str):
    with pytest.raises(ConfigurationError, match=r"postgresql\+asyncpg://"):
        await enter(url)


async def test_the_error_for_a_wrong_password_does_not_quote_it():
    async with running_postgres(use_tcp=True) as server:
        user, _, place = server.url.rpartition("@")
        wrong = user.rpartition(":")[0] + ":hunter2@" + place
        with pytest.raises(StoreUnavailable, match="refuses the user or the password") as seen:
            await enter(wrong)
    assert "hunter2" not in str(seen.value)


async def test_the_error_for_a_missing_database_names_it(postgres: PostgresServer):
    with pytest.raises(StoreUnavailable, match="no database of that name"):
        await enter(postgres.url.replace("/postgres?", "/nowhere?"))


async def test_a_database_without_the_schema_is_refused(database_url: str):
    with pytest.raises(SchemaMismatch, match="saga-engine migrate"):
        await enter(database_url)


async def test_a_database_of_a_newer_version_is_refused(migrated_url: str):
    async with Database(migrated_url, Settings()) as database:
        async with database.transaction() as tx:
            await tx.execute(text("UPDATE saga_engine.alembic_version SET version_num = '9999'"))
        with pytest.raises(SchemaMismatch, match="9999"):
            await database.check()


async def test_the_error_for_a_missing_table_says_how_to_migrate(database: Database):
    with pytest.raises(SchemaMismatch, match="saga-engine migrate"):
        async with database.transaction() as tx:
            await tx.execute(text("SELECT * FROM saga_engine.nothing"))


async def test_a_database_with_synchronous_commit_off_is_refused(migrated_url: str):
    async with Database(migrated_url, Settings()) as database, database.transaction() as tx:
        name = (await tx.execute(text("SELECT current_database()"))).scalar_one()
        await tx.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
    with pytest.raises(ConfigurationError, match="synchronous_commit"):
        await enter(migrated_url)


async def test_sessions_have_limits_and_read_committed_isolation(database: Database):
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    async with database.transaction() as tx:
        found = [(await tx.execute(text(f"SHOW {name}"))).scalar_one() for name in names]
        level = (await tx.execute(text("SHOW transaction_isolation"))).scalar_one()
    assert found == ["5s", "2s", "5s"]
    assert level == "read committed"


async def test_after_a_killed_session_the_next_transaction_works(database: Database):
    async def be_killed() -> None:
        async with database.transaction() as tx:
            async with database.transaction() as other:
                kill = text("SELECT pg_terminate_backend(:pid)")
                await other.execute(kill, {"pid": (await tx.execute(PID)).scalar_one()})
            await tx.execute(PID)

    with pytest.raises(StoreUnavailable):
        await be_killed()
    async with database.transaction() as tx:
        assert (await tx.execute(PID)).scalar_one()


async def test_the_pool_reconnects_after_a_restart_of_the_server():
    async with running_postgres() as server:
        url = await server.create_database("restarted")
        from saga_engine.store.migrate import upgrade  # noqa: PLC0415 - alembic is slow to import

        await upgrade(url)
        async with Database(url, Settings()) as database:
            server.kill()
            with pytest.raises(StoreUnavailable):
                await database.check()
            await server.restart()
            await database.check()


async def test_a_slow_statement_is_cancelled_and_rolled_back(migrated_url: str):
    async with Database(migrated_url, Settings(database_transaction_timeout=1)) as database:
        with pytest.raises(StoreUnavailable):
            async with database.transaction() as tx:
                await tx.execute(text("SELECT pg_sleep(60)"))
        async with database.transaction() as tx:
            assert (await tx.execute(IDLE)).scalar_one() == 0


async def test_a_slow_block_is_cancelled_and_rolled_back(migrated_url: str):
    async with Database(migrated_url, Settings(database_transaction_timeout=1)) as database:
        with pytest.raises(StoreUnavailable, match="in time"):
            async with database.transaction():
                await asyncio.Event().wait()
        async with database.transaction() as tx:
            assert (await tx.execute(IDLE)).scalar_one() == 0


async def test_a_lock_that_is_held_too_long_raises_lock_timeout(migrated_url: str):
    lock = text("LOCK TABLE saga_engine.engine_identity")
    settings = Settings(database_lock_timeout=0.1)
    async with Database(migrated_url, settings) as database, database.transaction() as tx:
        await tx.execute(lock)
        with pytest.raises(StoreUnavailable, match="55P03"):
            async with database.transaction() as other:
                await other.execute(lock)


async def test_an_exhausted_pool_is_unavailable(migrated_url: str):
    settings = Settings(database_pool_size=1, database_transaction_timeout=0.3)
    async with Database(migrated_url, settings) as database:
        with pytest.raises(StoreUnavailable):
            async with database.transaction(), database.transaction():
                pass


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("SELECT CAST(:value AS text)", "NUL \x00"),
        ("SELECT CAST(:value AS text)", "surrogate \ud800"),
        ("SELECT CAST(:value AS integer)", 2**40),
        ("SELECT CAST(CAST(:value AS text) AS jsonb)", '"\\u0000"'),
        ("SELECT CAST(CAST(:value AS text) AS uuid)", "hunter2"),
        ("INSERT INTO saga_engine.engine_identity (token_key) VALUES (:value)", b"hunter2"),
    ],
)
async def test_the_error_for_invalid_data_does_not_quote_it(
    database: Database, statement: str, value: object
):
    with pytest.raises(StoreRefused) as seen:
        async with database.transaction() as tx:
            await tx.execute(text(statement), {"value": value})
    assert "hunter2" not in str(seen.value)
    assert seen.value.__suppress_context__


async def test_a_disk_error_can_be_retried(database: Database):
    trouble = "DO $$ BEGIN RAISE EXCEPTION 'hunter2' USING ERRCODE = '58030'; END $$"
    with pytest.raises(StoreUnavailable, match="disk or its system") as seen:
        async with database.transaction() as tx:
            await tx.execute(text(trouble))
    assert "hunter2" not in str(seen.value)


async def test_a_deadlock_can_be_retried(database: Database):
    one = text("LOCK TABLE saga_engine.engine_identity")
    two = text("LOCK TABLE saga_engine.audit")
    ready = asyncio.Barrier(2)
    refused: list[StoreUnavailable] = []

    async def take(first, second) -> None:
        try:
            async with database.transaction() as tx:
                await tx.execute(first)
                await ready.wait()
                await tx.execute(second)
        except StoreUnavailable as error:
            refused.append(error)

    async with asyncio.TaskGroup() as group:
        group.create_task(take(one, two))
        group.create_task(take(two, one))
    assert ["40P01" in str(error) for error in refused] == [True]


async def test_a_stale_plan_after_a_schema_change_can_be_retried(database: Database):
    read = text("SELECT * FROM saga_engine.engine_identity")
    change = text("ALTER TABLE saga_engine.engine_identity ADD COLUMN extra integer")
    async with database.transaction() as tx:
        await tx.execute(read)

    async def use_it() -> None:
        async with database.transaction() as tx:  # the connection that has the plan
            async with database.transaction() as other:
                await other.execute(change)
            await tx.execute(read)

    with pytest.raises(StoreUnavailable, match="schema change"):
        await use_it()
    async with database.transaction() as tx:
        assert (await tx.execute(read)).all() == []


async def test_an_error_of_the_caller_is_not_translated(database: Database):
    with pytest.raises(asyncpg.PostgresSyntaxError):
        async with database.transaction() as tx:
            await tx.execute(text("SELEKT"))
    with pytest.raises(DBAPIError, match="syntax"):
        async with database.transaction() as tx:
            await tx.execute(sqlalchemy.text("SELEKT"))


async def test_text_and_sqlalchemy_statements_share_one_transaction(database: Database):
    number = "SELECT pg_current_xact_id()::text"
    status = text("SELECT pg_xact_status(CAST(CAST(:number AS text) AS xid8))")

    async def both(first, second) -> None:
        """Execute both and then fail."""
        async with database.transaction() as tx:
            one = (await tx.execute(first)).scalar_one()
            assert (await tx.execute(second)).scalar_one() == one
            seen.append(one)
            raise NotFound("-")

    seen: list[str] = []
    statements = (text(number), sqlalchemy.text(number))
    for first, second in (statements, statements[::-1]):
        with pytest.raises(NotFound):
            await both(first, second)
        async with database.transaction() as tx:
            seen.append((await tx.execute(first)).scalar_one())
    async with database.transaction() as tx:
        ends = [(await tx.execute(status, {"number": each})).scalar_one() for each in seen]
    assert ends == ["aborted", "committed"] * 2


async def test_a_block_that_ends_during_a_statement_is_rolled_back(
    migrated_url: str,
):
    async def linger(tx: SqlAlchemyTransaction, under_way: asyncio.Event) -> None:
        under_way.set()
        with suppress(asyncpg.PostgresConnectionError):
            await tx.execute(text("SELECT pg_sleep(0.2)"))

    async def leave(database: Database, group: asyncio.TaskGroup) -> None:
        async with database.transaction() as tx:
            await tx.execute(text("CREATE TABLE saga_engine.left_open ()"))
            group.create_task(linger(tx, under_way := asyncio.Event()))
            await under_way.wait()

    async with Database(migrated_url, Settings(database_pool_size=1)) as database:
        async with asyncio.TaskGroup() as group:
            with suppress(StoreUnavailable):
                await leave(database, group)
        async with database.transaction() as tx:
            there = text("SELECT to_regclass('saga_engine.left_open')::text")
            assert (await tx.execute(there)).scalar_one() is None


async def test_the_number_of_prepared_statements_is_limited(database: Database, monkeypatch):
    monkeypatch.setattr(pgbouncer, "_PREPARED_MAX", 3)
    # Those of this test: SQLAlchemy has prepared some of its own.
    ours = "statement ~ '^SELECT [0-9]+$'"
    prepared = text(f"SELECT count(*) FROM pg_prepared_statements WHERE {ours}")
    async with database.transaction() as tx:
        for number in range(20):
            await tx.execute(text(f"SELECT {number}"))
        assert (await tx.execute(prepared)).scalar_one() <= 2 * 3


@pytest.mark.parametrize("others", [text, sqlalchemy.text])
async def test_a_transaction_that_has_ended_executes_nothing(database: Database, others):
    async with database.transaction() as tx:
        pass
    async with database.transaction():  # which has the same connection
        with pytest.raises(ResourceClosedError):
            await tx.execute(others("SELECT 1"))


async def test_a_statement_is_prepared_once_for_each_connection(
    database: Database,
):
    prepared = text(
        "SELECT count(*), sum(generic_plans) FROM pg_prepared_statements"
        " WHERE statement LIKE '%generic_plans%'"
    )
    async with database.transaction() as tx:
        await tx.execute(prepared)
    with pytest.raises(StoreRefused):
        async with database.transaction() as tx:
            await tx.execute(text("SELECT 1 / 0"))
    async with database.transaction() as tx:
        for _ in range(4):
            await tx.execute(prepared)
        [known] = await tx.execute(prepared)
    assert (known.count, known.sum) == (1, 6)


async def test_a_cancelled_transaction_returns_its_connection(database: Database):
    started = asyncio.Event()

    async def forever() -> None:
        async with database.transaction() as tx:
            await tx.execute(PID)
            started.set()
            await tx.execute(text("SELECT pg_sleep(60)"))

    for _ in range(12):  # twice as many as there are connections
        started.clear()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(forever())
            await started.wait()
            task.cancel()
    async with database.transaction() as tx:
        assert (await tx.execute(IDLE)).scalar_one() == 0


@pytest.mark.parametrize("over_the_driver", [False, True])
async def test_a_session_that_a_user_has_changed_is_not_used_again(
    migrated_url: str, over_the_driver: bool
):
    change = "SET search_path = other"
    settings = Settings(database_pool_size=1)
    async with Database(migrated_url, settings, runs_user_sql=True) as database:
        async with database.transaction() as tx:
            first = (await tx.execute(PID)).scalar()
            if over_the_driver:
                raw = await tx.connection.get_raw_connection()
                driver: Any = raw.driver_connection
                await driver.execute(change)
            else:
                await tx.connection.exec_driver_sql(change)
        async with database.transaction() as tx:
            assert (await tx.execute(PID)).scalar() != first
