"""After a restore of PostgreSQL and the loss of RabbitMQ, runs in the backup complete."""

import asyncio
import os
from urllib.parse import parse_qs, urlsplit

import pytest

from examples.place_order.effect_log import count_effects
from saga_engine.embedded.programs import postgres_bin_directory, unprivileged_user
from saga_engine.store import dead_letter_queries, incidents
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.vocabulary import Status
from tests.kit.command_line import saga_engine
from tests.kit.engine import SLOW_TEST_SETTINGS
from tests.kit.figures import print_table
from tests.kit.load_environment import LoadEnvironment, load_environment
from tests.kit.programs import wait_until_true
from tests.kit.promises import check_promises
from tests.kit.rabbitmq import RabbitMQServer

SERVICES = "examples.place_order.services"
SAGAS = "examples.place_order.sagas"


async def postgres_program(name, *arguments, url):
    """Run a client program of PostgreSQL on a database."""
    parts = urlsplit(url)
    query = {key: value[0] for key, value in parse_qs(parts.query).items()}
    process = await asyncio.create_subprocess_exec(
        str(postgres_bin_directory(unprivileged_user()) / name),
        *("-h", query["host"], "-p", query["port"], "-U", parts.username),
        *("-d", parts.path.lstrip("/"), *arguments),
        env={**os.environ, "LC_ALL": "C"},
    )
    assert await process.wait() == 0, name


async def run_until_loss(load: LoadEnvironment, url, backup):
    """Make a backup under load, continue, and stop everything."""
    worker, participant = await load.start_worker(SAGAS), await load.start_participant(SERVICES)
    await load.start_runs(300)

    async def has_progress():
        return (await load.ended_by_status()).total() > 30

    await wait_until_true(has_progress)
    await postgres_program("pg_dump", "-Fc", "-f", str(backup), url=url)
    await load.start_runs(100)  # accepted after the backup: these are lost
    await load.wait_for_ended("place-order", (await load.ended_by_status()).total() + 50)
    await worker.end()
    await participant.end()


async def run_after_restore(load: LoadEnvironment, url):
    """Send commands in flight again, and wait until all runs of the backup have finished."""
    [(in_backup,)] = await load.query("SELECT count(*) FROM saga_engine.run")
    [(waiting,)] = await load.query(
        "SELECT count(*) FROM saga_engine.pending_request WHERE kind = 'start'"
    )
    unfinished = in_backup - (await load.ended_by_status()).total()
    assert unfinished > 10, "the backup came too late"
    ran = await saga_engine("recover", "--reason", "restored", "--json", database_url=url)
    assert ran.json["commands"] > 0
    await load.start_participant(SERVICES, name="participant-2")
    await load.start_worker(SAGAS, name="worker-2")
    await load.wait_for_ended("place-order", in_backup + waiting, patience=90)
    figures = {
        "runs in the backup": in_backup,
        "starts that waited for a slot": waiting,
        "unfinished": unfinished,
        "commands sent again": ran.json["commands"],
        "sent as another attempt": await load.extra_attempts(),
    }
    print_table("Restored from a backup, with an empty broker", figures)


@pytest.mark.rabbitmq
@pytest.mark.timeout(240)
async def test_a_restore_with_an_empty_broker_loses_no_run_of_the_backup(
    postgres, rabbitmq_vhosts, rabbitmq: RabbitMQServer, tmp_path, database_url
):
    engine_url = await postgres.create_database("before_the_loss")
    await upgrade(engine_url)
    backup = tmp_path / "backup"
    services = {"PLACE_ORDER_DATABASE_URL": database_url}  # it is not restored
    first = rabbitmq.url_of(await rabbitmq_vhosts.acquire())
    async with load_environment(engine_url, first, tmp_path, **services) as load:
        await run_until_loss(load, engine_url, backup)
    restored_url = await postgres.create_database("after_the_loss")
    await postgres_program("pg_restore", "--no-owner", str(backup), url=restored_url)
    second = rabbitmq.url_of(await rabbitmq_vhosts.acquire())
    async with load_environment(restored_url, second, tmp_path, **services) as load:
        await run_after_restore(load, restored_url)
    async with Database(restored_url, SLOW_TEST_SETTINGS) as database:
        runs = await check_promises(database)
        async with database.transaction() as tx:
            assert not await dead_letter_queries.read_page(tx, limit=10)
            assert not await incidents.read_page(tx, limit=10)
    assert {detail.stored_run.run.status for detail in runs.values()} == {Status.COMPLETED}
    effects = await count_effects(database_url)
    for detail in runs.values():
        run_effects = effects[detail.stored_run.run.input["order_id"]]
        assert dict(run_effects) == {"reserve": 1, "charge": 1, "confirm": 1}, "P4"
    await postgres.drop_database("before_the_loss")
    await postgres.drop_database("after_the_loss")
