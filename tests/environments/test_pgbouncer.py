import asyncio
import signal
from itertools import count

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine import Client, start_in_transaction
from saga_engine.errors import StoreError
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.store import definitions
from saga_engine.store.database import Database
from saga_engine.telemetry.events import DatabaseUnavailable
from tests.environments.order_saga import UNNAMED_STATEMENTS, order
from tests.environments.pgbouncer import IGNORED_PARAMETERS, running_pgbouncer
from tests.kit.command_line import exit_code_of, read_log_until, running_command, saga_engine
from tests.kit.events import EventRecorder
from tests.kit.participant_locks import hold_lock, is_lock_free
from tests.kit.proxy import running_proxy

MODES: dict[str, dict[str, object]] = {
    "as installed": {},
    "parameters ignored": {"ignore_startup_parameters": IGNORED_PARAMETERS},
    "session mode": {
        "pool_mode": "session",
        "ignore_startup_parameters": IGNORED_PARAMETERS,
        "default_pool_size": 60,
    },
}
SESSION_SETTINGS = {
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "5s",
    "transaction_isolation": "read committed",
    "timezone": "UTC",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
}
SHOWN = text("SELECT name, current_setting(name) FROM unnest(CAST(:names AS text[])) AS name")


@pytest.fixture(params=MODES)
async def bouncer(request, migrated_url):
    """A PgBouncer in each of several configurations."""
    async with running_pgbouncer(migrated_url, **MODES[request.param]) as running:
        yield running


@pytest.fixture
async def default_bouncer(migrated_url):
    """A PgBouncer in transaction mode with its default configuration."""
    async with running_pgbouncer(migrated_url) as running:
        yield running


async def test_the_session_settings_apply_in_every_transaction(bouncer, migrated_url):
    async with Database(bouncer.url(migrated_url), Settings()) as database:

        async def shown():
            async with database.transaction() as tx:
                found = await tx.execute(SHOWN, {"names": list(SESSION_SETTINGS)})
                return {row.name: row.current_setting for row in found}

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(shown()) for _ in range(20)]
        assert [task.result() for task in tasks] == [SESSION_SETTINGS] * 20


async def test_connections_of_many_processes_share_few_sessions(bouncer, migrated_url):
    """Prepared statements of one client must not collide with those of another in a session."""

    async def work(number):
        async with Database(bouncer.url(migrated_url), Settings(database_pool_size=1)) as database:
            for _ in range(5):
                async with database.transaction() as tx:
                    found = await tx.execute(text("SELECT CAST(:n AS int)"), {"n": number})
                    assert found.scalar_one() == number

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(work(number))


async def test_a_session_keeps_no_prepared_statements(bouncer, migrated_url):
    async with Database(bouncer.url(migrated_url), Settings()) as database:
        async with database.transaction() as tx:
            await tx.execute(text("SELECT 1"))
        async with database.transaction() as tx:
            left = await tx.execute(text("SELECT name FROM pg_prepared_statements"))
            assert left.all() == []


async def test_without_a_pooler_the_settings_belong_to_the_session(migrated_url):
    async with Database(migrated_url, Settings()) as database, database.transaction() as tx:
        driver = (await tx.connection.get_raw_connection()).driver_connection
        assert driver is not None
        assert (driver.uses_pooler(), driver._begin_settings) == (False, "")
        found = await tx.execute(SHOWN, {"names": list(SESSION_SETTINGS)})
        assert {row.name: row.current_setting for row in found} == SESSION_SETTINGS


@pytest.fixture
async def read_effects(migrated_url):
    """Reads the effect log of the participant, without the pooler."""
    engine = create_async_engine(migrated_url, poolclass=NullPool)
    async with engine.begin() as tx:
        await tx.execute(text("CREATE TABLE effect_log (order_id text, effect text)"))

    async def read():
        async with engine.connect() as tx:
            found = await tx.execute(text("SELECT order_id, effect FROM effect_log"))
            return sorted(tuple(row) for row in found)

    return read


MODULE = "tests.environments.order_saga"


@pytest.mark.parametrize(
    ("bouncer", "own_engine"),
    [
        ("as installed", ""),
        pytest.param("parameters ignored", "unnamed", marks=pytest.mark.long),
        pytest.param("as installed", "unnamed", marks=pytest.mark.long),
        pytest.param("session mode", "", marks=pytest.mark.long),
        pytest.param("session mode", "unnamed", marks=pytest.mark.long),
        pytest.param("parameters ignored", "", marks=pytest.mark.long),
    ],
    indirect=["bouncer"],
)
async def test_an_engine_works_through_a_pooler(
    own_engine, bouncer, migrated_url, rabbitmq_url, read_effects, monkeypatch
):
    url = bouncer.url(migrated_url)
    monkeypatch.setenv("SHOP_DATABASE_URL", url)
    monkeypatch.setenv("SHOP_ENGINE", own_engine)
    urls = {"database_url": url, "broker_url": rabbitmq_url}
    migrated = await saga_engine("migrate", **urls)
    assert migrated.exit_code == 0, migrated.err
    async with (
        running_command("worker", MODULE, "--port", "0", **urls) as worker,
        running_command("participant", MODULE, "--port", "0", **urls) as participant,
    ):
        await read_log_until(worker, "process.ready")
        await read_log_until(participant, "process.ready")
        orders = [{"order_id": f"o-{number}", "sold_out": number == 3} for number in range(1, 5)]
        async with Client(rabbitmq_url, settings=Settings()) as client:
            handles = [await client.start("order", each) for each in orders]
            statuses = [(await client.result(each.run_id, timeout=90)).status for each in handles]
        assert statuses == ["completed", "completed", "compensated", "completed"]
        listed = await saga_engine("list", "--json", **urls)
        assert listed.exit_code == 0, listed.err
        assert {run["run_id"] for run in listed.json["runs"]} == {str(h.run_id) for h in handles}
        for process in (worker, participant):
            process.send_signal(signal.SIGTERM)
        assert [await exit_code_of(worker), await exit_code_of(participant)] == [0, 0]
    sold = {(f"o-{number}", effect) for number in (1, 2, 4) for effect in ("reserve", "ship")}
    assert await read_effects() == sorted(sold | {("o-3", "reserve"), ("o-3", "release")})


async def test_an_engine_with_named_statements_is_refused_at_the_start(
    default_bouncer, migrated_url, rabbitmq_url, monkeypatch
):
    monkeypatch.setenv("SHOP_DATABASE_URL", default_bouncer.url(migrated_url))
    monkeypatch.setenv("SHOP_ENGINE", "plain")
    ran = await saga_engine("participant", MODULE, "--port", "0", broker_url=rabbitmq_url)
    assert ran.exit_code == 2, ran
    assert "prepared_statement_name_func" in ran.err
    assert "connection pooler" in ran.err


async def test_a_run_starts_in_a_transaction_through_a_pooler(default_bouncer, migrated_url):
    engine = create_async_engine(
        default_bouncer.url(migrated_url), poolclass=NullPool, connect_args=UNNAMED_STATEMENTS
    )
    async with Database(migrated_url, Settings()) as database, database.transaction() as tx:
        await definitions.register(tx, [order])
    async with engine.begin() as connection:
        first = await start_in_transaction(connection, "order", {"order_id": "a"}, key="a")
    async with engine.begin() as connection:
        again = await start_in_transaction(connection, "order", {"order_id": "a"}, key="a")
    assert (again.run_id, again.existing) == (first.run_id, True)
    await engine.dispose()


async def test_a_start_whose_statement_names_collide_fails_with_a_sentence(
    default_bouncer, migrated_url
):
    """As happens with an engine that is not configured for a pooler."""
    names = count()
    collide = asyncio.Event()
    engine = create_async_engine(
        default_bouncer.url(migrated_url),
        connect_args={
            "prepared_statement_name_func": lambda: f"s_{0 if collide.is_set() else next(names)}"
        },
    )
    async with engine.connect() as connection:
        collide.set()
        with pytest.raises(StoreError, match="connection pooler"):
            await start_in_transaction(connection, order, {"order_id": "a"}, key="a")
    await engine.dispose()


@pytest.mark.parametrize("name", ["statement_cache_size", "prepared_statement_cache_size"])
async def test_usual_url_parameters_for_a_pooler_are_accepted(name, default_bouncer, migrated_url):
    url = f"{default_bouncer.url(migrated_url)}?{name}=0"
    listed = await saga_engine("list", "--json", database_url=url)
    assert (listed.exit_code, listed.json["runs"]) == (0, [])
    direct = await saga_engine("list", "--json", database_url=f"{migrated_url}&{name}=0")
    assert (direct.exit_code, direct.json["runs"]) == (0, [])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("statement_cache_size=few", "statement_cache_size, which must be a number"),
        ("command_timeout=soon", "command_timeout, which must be a number"),
        ("loop=uvloop", "loop, which asyncpg does not know"),
        ("server_settings=jit", "server_settings, which asyncpg does not know"),
    ],
)
async def test_an_invalid_url_parameter_is_a_sentence(query, words, migrated_url):
    ran = await saga_engine("list", database_url=f"{migrated_url}&{query}")
    assert (ran.exit_code, words in ran.err) == (2, True), ran


async def test_a_refusal_of_the_pooler_names_the_pooler(migrated_url):
    async with running_pgbouncer(migrated_url, max_client_conn=1) as bouncer:
        url = bouncer.url(migrated_url)
        async with Database(url, Settings(database_pool_size=1)):
            ran = await saga_engine("list", database_url=url)
    assert (ran.exit_code, "pooler" in ran.err) == (5, True), ran


async def test_a_statement_lost_before_the_pooler_is_ended_on_both_sides(migrated_url):
    """The backend pid belongs to the pooler there, so the session is found by its name."""
    async with (
        running_pgbouncer(migrated_url) as bouncer,
        running_proxy(bouncer.url(migrated_url)) as proxy,
    ):
        events = EventRecorder()
        settings = Settings(participant_statement_check_after=0.5)
        database = ParticipantDatabase(proxy.url, settings)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(database.run_lost_statement_monitor(events))

            async def vanish(tx):
                proxy.drop_open_connections()
                await tx.connection.execute(text("SELECT 1"))

            with pytest.raises(DBAPIError):
                await hold_lock(database, vanish, 60)
            assert await is_lock_free(database, 60)
            watching.cancel()
        await database.close()
    assert {event.problem for event in events.matching(DatabaseUnavailable)} == {
        "1 statements or their responses were lost on the network."
    }


async def test_a_running_statement_behind_the_pooler_is_left_alone(migrated_url):
    async with running_pgbouncer(migrated_url) as bouncer:
        events = EventRecorder()
        settings = Settings(participant_statement_check_after=0.2)
        database = ParticipantDatabase(bouncer.url(migrated_url), settings)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(database.run_lost_statement_monitor(events))
            async with database.transaction() as tx:
                await tx.connection.execute(text("SELECT pg_sleep(3)"))
                assert await tx.connection.scalar(text("SELECT 1")) == 1
            watching.cancel()
        await database.close()
    assert not events.matching(DatabaseUnavailable)
