"""An operator rebuilds a projection and switches to it, with the command line alone."""

from random import Random

import pytest

from saga_engine.events import Events
from saga_engine.events.read_models.read_models import register
from saga_engine.events.read_models.run_statistics import RUN_STATISTICS
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from tests.kit.command_line import saga_engine
from tests.kit.programs import wait_until_true
from tests.kit.projections import (
    append_one,
    placed,
    projection_database,
    running_projector,
    wait_for_position,
)
from tests.kit.read_model import orders_projection
from tests.kit.read_models import append_random, last_position, table_rows


@pytest.fixture
async def projector(migrated_url):
    """A projector that has applied an event, while the test runs."""
    async with (
        projection_database(migrated_url) as database,
        Events(migrated_url, settings=Settings()) as events,
    ):
        position = await append_one(events, "order-1", placed())
        async with running_projector(migrated_url, [orders_projection()]):
            await wait_for_position(database, "orders", position)
            yield


async def command(migrated_url, *words, **options):
    return await saga_engine("projections", *words, database_url=migrated_url, **options)


async def wait_until_ready(migrated_url):
    async def is_ready():
        listed = (await command(migrated_url, "list", "--json")).json["projections"]
        return [(each["role"], each["state"]) for each in listed][-1] == ("rebuild", "ready")

    await wait_until_true(is_ready)


@pytest.mark.usefixtures("projector")
async def test_rebuild_switch_and_back(migrated_url):
    ran = await command(migrated_url, "rebuild", "orders", "--reason", "totals", "--json")
    first = ran.json["from_position"]
    assert first > 0
    assert (ran.json["rebuilding"], ran.json["version"]) == ("orders", 2)
    assert ran.json["runs_complete_from"] == 1  # retention has dropped nothing
    await wait_until_ready(migrated_url)
    ran = await command(migrated_url, "switch", "orders", "--operator", "mara")
    assert ran.out == "Version 2 of orders is live. Version 1 is kept, to return to it.\n"
    assert (await command(migrated_url, "switch", "orders")).out == ran.out
    ran = await command(migrated_url, "list")
    assert [line.split("\t")[-1] for line in ran.out.splitlines()] == ["role", "previous", "live"]
    ran = await command(migrated_url, "switch", "orders", "--back", "--json")
    assert (ran.json["switched"], ran.json["version"], ran.json["previous"]) == ("orders", 1, 2)
    ran = await command(migrated_url, "show", "orders", "--json")
    actions = [(each["action"], each["version"]) for each in ran.json["projection"]["actions"]]
    assert actions == [("back", 1), ("switch", 2), ("rebuild", 2)]
    ran = await command(migrated_url, "show", "orders")
    assert "\nswitch\t2\t" in ran.out


@pytest.mark.usefixtures("projector")
async def test_a_rebuild_is_paused_shown_and_discarded(migrated_url):
    ran = await command(migrated_url, "rebuild", "orders")
    by_code = "Version 2 of the tables of orders is filled by version 1 of the code, from position "
    assert ran.out.startswith(by_code)
    await command(migrated_url, "pause", "orders", "--version", "2")
    ran = await command(migrated_url, "show", "orders", "--version", "2", "--json")
    assert ran.json["projection"]["state"] == "paused"
    ran = await command(migrated_url, "switch", "orders")
    assert (ran.exit_code, "is paused" in ran.err) == (4, True)
    ran = await command(migrated_url, "rebuild", "orders", "--discard")
    assert ran.out == "Version 2 of orders is removed.\n"
    ran = await command(migrated_url, "switch", "orders")
    assert (ran.exit_code, "has no rebuild" in ran.err) == (3, True)
    ran = await command(migrated_url, "rebuild", "nothing")
    assert ran.exit_code == 3


async def test_a_read_model_of_the_engine_is_filled_again(database, definition_id, migrated_url):
    await append_random(database, Random(0), definition_id, 10)
    name = RUN_STATISTICS.name
    missing = await command(migrated_url, "rebuild", name)
    assert (missing.exit_code, f"no projection '{name}'" in missing.err) == (3, True)
    async with database.transaction() as tx:
        await register(tx)
    last = await last_position(database)
    ran = await command(migrated_url, "rebuild", name, "--reason", "a test")
    assert ran.out.startswith(f"{name} is filled again from position 1, the first event of a run")
    assert ran.out.endswith(f", up to {last}.\n")
    document = (await command(migrated_url, "rebuild", name, "--json")).json
    assert (document["rebuilt"], document["position"]) == (name, last)
    assert await table_rows(database, RUN_STATISTICS)
    async with database.transaction() as tx:
        await tx.execute(text("UPDATE saga_engine.event_log SET runs_complete_from = 5"))
    ran = await command(migrated_url, "rebuild", name)
    assert "dropped runs with events before position 5" in ran.out
    refused = await command(migrated_url, "rebuild", name, "--discard")
    assert (refused.exit_code, "no --code-version" in refused.err) == (2, True)
    unknown = await command(migrated_url, "rebuild", f"{name}s")
    assert (unknown.exit_code, f"Did you mean {name}?" in unknown.err) == (3, True)
