"""PostgreSQL comes back from a backup, RabbitMQ comes back empty: what was accepted before ends."""

import asyncio
import os
from urllib.parse import parse_qs, urlsplit

import pytest

from examples.place_order.effect_log import count_effects
from saga_engine.embedded.programs import postgres_bin_directory, unprivileged_user
from saga_engine.settings import Settings
from saga_engine.store import dead_letter_queries, incidents
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.vocabulary import Status
from tests.kit.command_line import saga_engine
from tests.kit.load_environment import load_environment, print_table
from tests.kit.programs import wait_until_true
from tests.kit.promises import check_promises
from tests.kit.rabbitmq import RabbitMQServer

SERVICES = "examples.place_order.services"
SAGAS = "examples.place_order.sagas"


async def postgres_program(name, *arguments, url):
    """Run one of PostgreSQL's own programs on a database."""
    at = urlsplit(url)
    query = {key: value[0] for key, value in parse_qs(at.query).items()}
    process = await asyncio.create_subprocess_exec(
        str(postgres_bin_directory(unprivileged_user()) / name),
        *("-h", query["host"], "-p", query["port"], "-U", at.username),
        *("-d", at.path.lstrip("/"), *arguments),
        env={**os.environ, "LC_ALL": "C"},
    )
    assert await process.wait() == 0, name


async def until_the_loss(place, url, backup):
    """Make a backup under load, work on, and lose everything."""
    worker, participant = await place.worker(SAGAS), await place.participant(SERVICES)
    await place.start(300)

    async def is_under_way():
        return (await place.ended()).total() > 30

    await wait_until_true(is_under_way)
    await postgres_program("pg_dump", "-Fc", "-f", str(backup), url=url)
    await place.start(100)  # accepted after the backup: they will be gone
    await place.ends("place-order", (await place.ended()).total() + 50)
    await worker.end()
    await participant.end()


async def after_the_loss(place, url):
    """Order again what the backup says is in flight, and work on until all of it has ended."""
    [(in_backup,)] = await place.ask("SELECT count(*) FROM saga_engine.run")
    [(waiting,)] = await place.ask(
        "SELECT count(*) FROM saga_engine.pending_request WHERE kind = 'start'"
    )
    unfinished = in_backup - (await place.ended()).total()
    assert unfinished > 10, "the backup came too late"
    ran = await saga_engine("recover", "--reason", "restored", "--json", database_url=url)
    assert ran.json["commands"] > 0
    await place.participant(SERVICES, name="participant-2")
    await place.worker(SAGAS, name="worker-2")
    await place.ends("place-order", in_backup + waiting, patience=90)
    figures = {
        "runs in the backup": in_backup,
        "starts that waited in it": waiting,
        "unfinished": unfinished,
        "commands ordered again": ran.json["commands"],
        "sent as another attempt": await place.extra_attempts(),
    }
    print_table("Restored from a backup, with an empty broker", figures)


@pytest.mark.rabbitmq
@pytest.mark.timeout(240)
async def test_a_backup_made_under_load_and_an_empty_broker_lose_nothing_that_is_in_the_backup(
    postgres, rabbitmq_vhosts, rabbitmq: RabbitMQServer, tmp_path, database_url
):
    engine_url = await postgres.create_database("before_the_loss")
    await upgrade(engine_url)
    backup = tmp_path / "backup"
    services = {"PLACE_ORDER_DATABASE_URL": database_url}  # which nobody restores
    first = rabbitmq.url_of(await rabbitmq_vhosts.fresh())
    async with load_environment(engine_url, first, tmp_path, **services) as place:
        await until_the_loss(place, engine_url, backup)
    restored_url = await postgres.create_database("after_the_loss")
    await postgres_program("pg_restore", "--no-owner", str(backup), url=restored_url)
    second = rabbitmq.url_of(await rabbitmq_vhosts.fresh())
    async with load_environment(restored_url, second, tmp_path, **services) as place:
        await after_the_loss(place, restored_url)
    async with Database(restored_url, Settings()) as database:
        runs = await check_promises(database)
        async with database.transaction() as tx:
            assert not await dead_letter_queries.read_page(tx, limit=10)
            assert not await incidents.read_page(tx, limit=10)
    assert {detail.stored.run.status for detail in runs.values()} == {Status.COMPLETED}
    happened = await count_effects(database_url)
    for detail in runs.values():
        done = happened[detail.stored.run.input["order_id"]]
        assert dict(done) == {"reserve": 1, "charge": 1, "confirm": 1}, "P4"
    await postgres.drop_database("before_the_loss")
    await postgres.drop_database("after_the_loss")
