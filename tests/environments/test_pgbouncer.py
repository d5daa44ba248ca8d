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
from tests.cli.conftest import saga_engine
from tests.cli.test_services import ended, serving, told
from tests.environments.order_saga import UNNAMED_STATEMENTS, order
from tests.environments.pgbouncer import IGNORED_PARAMETERS, running_pgbouncer
from tests.kit.payments_participant import EventList
from tests.kit.proxy import running_proxy
from tests.participant.test_database import hold, is_free

MODES: dict[str, dict[str, object]] = {
    "as installed": {},
    "parameters ignored": {"ignore_startup_parameters": IGNORED_PARAMETERS},
    "session mode": {
        "pool_mode": "session",
        "ignore_startup_parameters": IGNORED_PARAMETERS,
        "default_pool_size": 60,
    },
}
OURS = {
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
    """A PgBouncer before the server of the tests, configured in one of several ways."""
    async with running_pgbouncer(migrated_url, **MODES[request.param]) as running:
        yield running


@pytest.fixture
async def installed(migrated_url):
    """A PgBouncer in transaction mode and otherwise as it is installed."""
    async with running_pgbouncer(migrated_url) as running:
        yield running


async def test_our_settings_are_in_force_in_every_transaction(bouncer, migrated_url):
    async with Database(bouncer.url(migrated_url), Settings()) as database:

        async def shown():
            async with database.transaction() as tx:
                found = await tx.execute(SHOWN, {"names": list(OURS)})
                return {row.name: row.current_setting for row in found}

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(shown()) for _ in range(20)]
        assert [task.result() for task in tasks] == [OURS] * 20


async def test_connections_of_many_processes_share_few_sessions(bouncer, migrated_url):
    """Prepared statements of one client must not meet those of another in a session."""

    async def work(number):
        async with Database(bouncer.url(migrated_url), Settings(database_pool_size=1)) as database:
            for _ in range(5):
                async with database.transaction() as tx:
                    found = await tx.execute(text("SELECT CAST(:n AS int)"), {"n": number})
                    assert found.scalar_one() == number

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(work(number))


async def test_a_session_keeps_nothing_of_ours(bouncer, migrated_url):
    async with Database(bouncer.url(migrated_url), Settings()) as database:
        async with database.transaction() as tx:
            await tx.execute(text("SELECT 1"))
        async with database.transaction() as tx:
            left = await tx.execute(text("SELECT name FROM pg_prepared_statements"))
            assert left.all() == []


async def test_without_a_pooler_the_session_has_our_settings_and_begin_is_just_begin(migrated_url):
    async with Database(migrated_url, Settings()) as database, database.transaction() as tx:
        driver = (await tx.connection.get_raw_connection()).driver_connection
        assert driver is not None
        assert (driver.uses_pooler(), driver._begin_settings) == (False, "")
        found = await tx.execute(SHOWN, {"names": list(OURS)})
        assert {row.name: row.current_setting for row in found} == OURS


@pytest.fixture
async def ledger(migrated_url):
    """What the shop has written, read without the pooler."""
    engine = create_async_engine(migrated_url, poolclass=NullPool)
    async with engine.begin() as tx:
        await tx.execute(text("CREATE TABLE ledger (order_id text, what text)"))

    async def written():
        async with engine.connect() as tx:
            found = await tx.execute(text("SELECT order_id, what FROM ledger"))
            return sorted(tuple(row) for row in found)

    return written


SHOP = "tests.environments.order_saga"


@pytest.mark.parametrize("own_engine", ["", "unnamed"], ids=["a URL", "an engine"])
async def test_an_engine_runs_through_it(
    own_engine, bouncer, migrated_url, rabbitmq_url, ledger, monkeypatch
):
    url = bouncer.url(migrated_url)
    monkeypatch.setenv("SHOP_DATABASE_URL", url)
    monkeypatch.setenv("SHOP_ENGINE", own_engine)
    urls = {"database_url": url, "broker_url": rabbitmq_url}
    migrated = await saga_engine("migrate", **urls)
    assert migrated.exit_code == 0, migrated.err
    async with (
        serving("worker", SHOP, "--port", "0", **urls) as worker,
        serving("participant", SHOP, "--port", "0", **urls) as participant,
    ):
        await told(worker, "process.ready")
        await told(participant, "process.ready")
        orders = [{"order_id": f"o-{number}", "sold_out": number == 3} for number in range(1, 5)]
        async with Client(rabbitmq_url, settings=Settings()) as client:
            handles = [await client.start("order", each) for each in orders]
            ends = [(await client.result(each.run_id, timeout=90)).status for each in handles]
        assert ends == ["completed", "completed", "compensated", "completed"]
        listed = await saga_engine("list", "--json", **urls)
        assert listed.exit_code == 0, listed.err
        assert {run["run_id"] for run in listed.json["runs"]} == {str(h.run_id) for h in handles}
        for process in (worker, participant):
            process.send_signal(signal.SIGTERM)
        assert [await ended(worker), await ended(participant)] == [0, 0]
    sold = {(f"o-{number}", what) for number in (1, 2, 4) for what in ("reserve", "ship")}
    assert await ledger() == sorted(sold | {("o-3", "reserve"), ("o-3", "release")})


async def test_an_engine_whose_statements_have_names_is_refused_at_start(
    installed, migrated_url, rabbitmq_url, monkeypatch
):
    monkeypatch.setenv("SHOP_DATABASE_URL", installed.url(migrated_url))
    monkeypatch.setenv("SHOP_ENGINE", "plain")
    ran = await saga_engine("participant", SHOP, "--port", "0", broker_url=rabbitmq_url)
    assert ran.exit_code == 2, ran
    assert "prepared_statement_name_func" in ran.err
    assert "connection pooler" in ran.err


async def test_a_run_starts_in_a_transaction_of_an_engine_made_for_it(installed, migrated_url):
    engine = create_async_engine(
        installed.url(migrated_url), poolclass=NullPool, connect_args=UNNAMED_STATEMENTS
    )
    async with Database(migrated_url, Settings()) as database, database.transaction() as tx:
        await definitions.register(tx, [order])
    async with engine.begin() as connection:
        first = await start_in_transaction(connection, "order", {"order_id": "a"}, key="a")
    async with engine.begin() as connection:
        again = await start_in_transaction(connection, "order", {"order_id": "a"}, key="a")
    assert (again.run_id, again.existing) == (first.run_id, True)
    await engine.dispose()


async def test_a_run_started_with_names_that_meet_in_a_session_fails_in_a_sentence(
    installed, migrated_url
):
    """As with an engine that was not made for a pooler."""
    names = count()
    met = asyncio.Event()
    engine = create_async_engine(
        installed.url(migrated_url),
        connect_args={
            "prepared_statement_name_func": lambda: f"s_{0 if met.is_set() else next(names)}"
        },
    )
    async with engine.connect() as connection:
        met.set()
        with pytest.raises(StoreError, match="connection pooler"):
            await start_in_transaction(connection, order, {"order_id": "a"}, key="a")
    await engine.dispose()


@pytest.mark.parametrize("name", ["statement_cache_size", "prepared_statement_cache_size"])
async def test_what_others_say_to_add_to_a_url_for_a_pooler_does_no_harm(
    name, installed, migrated_url
):
    url = f"{installed.url(migrated_url)}?{name}=0"
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
async def test_a_parameter_of_a_url_that_cannot_be_read_is_a_sentence(query, words, migrated_url):
    ran = await saga_engine("list", database_url=f"{migrated_url}&{query}")
    assert (ran.exit_code, words in ran.err) == (2, True), ran


async def test_a_pooler_that_does_not_know_the_database_says_so(migrated_url):
    async with running_pgbouncer(migrated_url, max_client_conn=1) as bouncer:
        url = bouncer.url(migrated_url)
        async with Database(url, Settings(database_pool_size=1)):
            ran = await saga_engine("list", database_url=url)
    assert (ran.exit_code, "pooler" in ran.err) == (5, True), ran


async def test_a_statement_that_is_lost_before_the_pooler_is_ended_on_both_sides(migrated_url):
    """A session's number is the pooler's there, so it is found by a name."""
    async with (
        running_pgbouncer(migrated_url) as bouncer,
        running_proxy(bouncer.url(migrated_url)) as proxy,
    ):
        told = EventList()
        settings = Settings(participant_statement_check_after=0.5)
        database = ParticipantDatabase(proxy.url, settings)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(database.run_lost_statement_monitor(told))

            async def vanish(tx):
                proxy.drop_open_connections()
                await tx.execute(text("SELECT 1"))

            with pytest.raises(DBAPIError):
                await hold(database, vanish, 60)
            assert await is_free(database, 60)
            watching.cancel()
        await database.close()
    assert {trouble.problem for trouble in told.of_type(DatabaseUnavailable)} == {
        "1 statements or their answers were lost on the way."
    }


async def test_a_statement_that_is_at_work_behind_the_pooler_is_left_alone(migrated_url):
    async with running_pgbouncer(migrated_url) as bouncer:
        told = EventList()
        settings = Settings(participant_statement_check_after=0.2)
        database = ParticipantDatabase(bouncer.url(migrated_url), settings)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(database.run_lost_statement_monitor(told))
            async with database.transaction() as tx:
                await tx.execute(text("SELECT pg_sleep(3)"))
                assert await tx.scalar(text("SELECT 1")) == 1
            watching.cancel()
        await database.close()
    assert not told.of_type(DatabaseUnavailable)
