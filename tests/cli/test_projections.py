"""An operator sees how far projections are, and acts on them, with the command line alone."""

import pytest

from saga_engine.events import Events
from saga_engine.settings import Settings
from saga_engine.telemetry.events import ProjectionAcquired, ProjectionStopped, StreamParked
from tests.kit.command_line import saga_engine
from tests.kit.projections import (
    append_one,
    placed,
    projection_database,
    running_projector,
    wait_for_position,
)
from tests.kit.read_model import history_projection, orders_projection


@pytest.fixture
async def database(migrated_url):
    async with projection_database(migrated_url) as database:
        yield database


@pytest.fixture
async def event_store(migrated_url):
    async with Events(migrated_url, settings=Settings()) as client:
        yield client


@pytest.fixture
async def stopped(event_store, database, migrated_url) -> int:
    """The position of an event at which `orders` is stopped; `history` has passed it."""
    await append_one(event_store, "order-1", placed("poison"))
    last = await append_one(event_store, "order-2", placed())
    both = [orders_projection(), history_projection()]
    async with running_projector(migrated_url, both) as emitted:
        (found,) = await emitted.wait_for(ProjectionStopped)
        await wait_for_position(database, "history", last)
    position: int = found.position
    return position


async def command(migrated_url, *words, **options):
    return await saga_engine("projections", *words, database_url=migrated_url, **options)


async def test_list_shows_state_and_lag(stopped, migrated_url):
    ran = await command(migrated_url, "list", "--json")
    history, orders = ran.json["projections"]
    assert (history["name"], history["state"], history["owner"]) == ("history", "active", None)
    assert (history["lag_events"], history["lag_seconds"]) == (0, 0.0)
    assert (orders["state"], orders["position"], orders["version"]) == ("stopped", stopped - 1, 1)
    assert orders["lag_events"] == 2
    assert [each["waiting_events"] for each in (history, orders)] == [0, 1]
    assert orders["lag_seconds"] > 0
    ran = await command(migrated_url, "list")
    lines = [line.split("\t") for line in ran.out.splitlines()]
    assert [(*line[:4], line[7]) for line in lines] == [
        ("projection", "version", "code version", "state", "waiting events"),
        ("history", "1", "1", "active (no process)", "0"),
        ("orders", "1", "1", "stopped", "1"),
    ]
    assert ran.err == "No process runs history: start `saga-engine projector MODULE`.\n"
    assert [each["running"] for each in (history, orders)] == [False, False]


@pytest.mark.usefixtures("database")
async def test_a_projection_that_a_process_runs_is_shown_as_such(migrated_url):
    async with running_projector(migrated_url, [history_projection()]) as emitted:
        await emitted.wait_for(ProjectionAcquired)
        (history,) = (await command(migrated_url, "list", "--json")).json["projections"]
        assert (history["state"], history["running"]) == ("active", True)
        ran = await command(migrated_url, "show", "history")
        assert "\nstate              active\n" in ran.out
        assert "No process runs" not in ran.err
    ran = await command(migrated_url, "show", "history")
    assert "\nstate              active (no process)\n" in ran.out
    assert ran.err.endswith("No process runs history: start `saga-engine projector MODULE`.\n")


async def test_show_names_the_event_that_could_not_be_applied(stopped, migrated_url):
    ran = await command(migrated_url, "show", "orders", "--json")
    (failure,) = ran.json["projection"]["failures"]
    assert (failure["position"], failure["stream"], failure["attempts"]) == (stopped, "order-1", 1)
    assert "placed raised ValueError at" in failure["error"]
    ran = await command(migrated_url, "show", "orders")
    assert f"\n{stopped}\torder-1\torder-placed\t1\t" in ran.out


async def test_a_stopped_projection_is_skipped_and_retried(stopped, migrated_url):
    ran = await command(migrated_url, "retry", "orders", "--reason", "deployed")
    assert (ran.out, ran.exit_code) == ("orders tries 1 failure again.\n", 0)
    async with running_projector(migrated_url, [orders_projection()]) as emitted:
        await emitted.wait_for(ProjectionStopped)
    ran = await command(migrated_url, "skip", "orders", stopped, "--reason", "a test")
    assert ran.out == f"orders goes on without the event at position {stopped}.\n"
    ran = await command(migrated_url, "show", "orders", "--json")
    assert ran.json["projection"]["failures"] == []
    assert ran.json["projection"]["state"] == "active"
    ran = await command(migrated_url, "show", "orders")
    assert "No event waits for a correction." in ran.err
    assert "\nskipped_events     1\n" in ran.out


async def test_who_skipped_an_event_and_why_is_shown(stopped, migrated_url):
    done = await command(
        *(migrated_url, "skip", "orders", stopped, "--reason", "a test order"),
        *("--operator", "mara", "--json"),
    )
    assert (done.json["skipped"], done.json["position"]) == ("orders", stopped)
    (resolved,) = (await command(migrated_url, "show", "orders", "--json")).json["projection"][
        "resolved"
    ]
    assert resolved.pop("resolved_at")
    assert resolved == {
        "position": stopped,
        "stream": "order-1",
        "type": "order-placed",
        "resolution": "skipped",
        "resolved_by": "mara",
        "reason": "a test order",
    }
    lines = (await command(migrated_url, "show", "orders")).out.splitlines()
    *_, line = (each.split("\t") for each in lines if "\tskipped\t" in each)
    assert (line[0], line[3], *line[5:]) == (str(stopped), "skipped", "mara", "a test order")


@pytest.mark.usefixtures("stopped")
async def test_a_position_that_no_event_can_have_is_a_sentence(migrated_url):
    ran = await command(migrated_url, "skip", "orders", 10**30, "--reason", "a test")
    assert (ran.exit_code, "Give an integer, from 0 to" in ran.err) == (2, True)


async def test_a_skip_needs_a_reason(stopped, migrated_url):
    for options in ((), ("--reason", " ")):
        ran = await command(migrated_url, "skip", "orders", stopped, *options)
        assert ran.exit_code in (2, 4)
        assert len(ran.err.splitlines()) == 1
    ran = await command(migrated_url, "show", "orders", "--json")
    assert (ran.json["projection"]["state"], ran.json["projection"]["resolved"]) == ("stopped", [])


@pytest.mark.usefixtures("database")
async def test_a_parked_stream_is_shown_until_it_is_caught_up(event_store, migrated_url):
    """Also when its failure is resolved, and no process has applied its events yet."""
    position = await append_one(event_store, "order-1", placed("poison"))
    projection = orders_projection(on_poison="park-stream")
    async with running_projector(migrated_url, [projection]) as emitted:
        await emitted.wait_for(StreamParked)
    await command(migrated_url, "retry", "orders", "--reason", "deployed")
    document = (await command(migrated_url, "show", "orders", "--json")).json["projection"]
    (parked,) = document["parked"]
    assert (parked["stream"], parked["next_position"]) == ("order-1", position)
    assert parked["retry_requested_at"]
    ran = await command(migrated_url, "show", "orders")
    assert f"\norder-1\t{position}\t2" in ran.out
    assert "No event waits for a correction." in ran.err
    (orders,) = (await command(migrated_url, "list", "--json")).json["projections"]
    assert (orders["waiting_events"], orders["parked_streams"]) == (0, 1)


@pytest.mark.usefixtures("stopped")
async def test_pause_and_resume(migrated_url):
    assert (await command(migrated_url, "pause", "history")).out == "history is paused.\n"
    assert (await command(migrated_url, "pause", "history")).exit_code == 4
    assert (await command(migrated_url, "resume", "history")).out == "history continues.\n"
    assert (await command(migrated_url, "pause", "history", "--json")).json["paused"] == "history"
    ran = await command(migrated_url, "resume", "history", "--json")
    assert ran.json["resumed"] == "history"


@pytest.mark.usefixtures("stopped")
async def test_show_prints_what_operators_did(migrated_url):
    why = ("--reason", "the disk is full", "--operator", "mara")
    await command(migrated_url, "pause", "history", *why)
    await command(migrated_url, "resume", "history", "--operator", "ivo")
    shown = (await command(migrated_url, "show", "history", "--json")).json["projection"]
    assert [
        (each["action"], each["version"], each["operator"], each["reason"])
        for each in shown["actions"]
    ] == [("resume", 1, "ivo", ""), ("pause", 1, "mara", "the disk is full")]
    line = (await command(migrated_url, "show", "history")).out.splitlines()[-1].split("\t")
    assert [*line[:3], *line[4:]] == ["pause", "1", "-", "mara", "the disk is full"]


@pytest.mark.usefixtures("stopped")
async def test_the_nearest_projection_is_suggested(migrated_url):
    for words in (("show", "ordres"), ("rebuild", "ordres"), ("switch", "ordres")):
        ran = await command(migrated_url, *words)
        assert (ran.exit_code, "Did you mean orders?" in ran.err) == (3, True)


async def test_an_unknown_projection_exits_3(migrated_url):
    ran = await command(migrated_url, "list")
    assert ran.err == (
        "No projector has registered a projection. Start one: saga-engine projector MODULE\n"
    )
    for words in (
        ["show", "orders"],
        ["pause", "orders"],
        ["skip", "orders", "1", "--reason", "a test"],
    ):
        ran = await command(migrated_url, *words)
        assert (ran.exit_code, "no projection 'orders'" in ran.err) == (3, True)
