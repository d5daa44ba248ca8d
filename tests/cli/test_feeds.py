"""An operator sees how far feeds are, and acts on them, with the command line alone."""

import re

import pytest

from saga_engine.events import Events
from saga_engine.events.feeds import feed_table, waiting_streams
from saga_engine.events.feeds.waiting_streams import Refusal
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import ENGINE_DATABASE
from saga_engine.telemetry.events import FeedStopped
from tests.kit.command_line import REPOSITORY, saga_engine
from tests.kit.event_database import connected
from tests.kit.feeds import order_event, order_feed, running_feeds
from tests.kit.projections import append_one, placed
from tests.kit.webhooks import HOOKS

CLI_PAGE = (REPOSITORY / "docs" / "cli.md").read_text()


@pytest.fixture
async def stopped(migrated_url, development_broker) -> int:
    """The position of an event at which `orders` is stopped; `others` has passed it."""
    async with Events(migrated_url, settings=Settings()) as event_store:
        await append_one(event_store, "order-1", placed())
    feeds = [order_feed(unroutable="stop"), order_feed("others")]
    async with running_feeds(migrated_url, development_broker.url, feeds) as emitted:
        (found,) = await emitted.wait_for(FeedStopped)
    position: int = found.position
    return position


async def command(migrated_url, *words, **options):
    return await saga_engine("feeds", *words, database_url=migrated_url, **options)


async def feed(migrated_url, name="orders"):
    return (await command(migrated_url, "show", name, "--json")).json["feed"]


async def test_list_shows_state_and_lag(stopped, migrated_url):
    orders, others = (await command(migrated_url, "list", "--json")).json["feeds"]
    assert (orders["state"], orders["position"], orders["sink"]) == (
        "stopped",
        stopped - 1,
        "exchange",
    )
    assert (orders["lag_events"], orders["skipped"], orders["owner"]) == (1, 0, None)
    assert orders["lag_seconds"] > 0
    assert (others["state"], others["name"]) == ("active", "others")
    ran = await command(migrated_url, "list")
    assert [line.split("\t")[:3] for line in ran.out.splitlines()] == [
        ["feed", "sink", "state"],
        ["orders", "exchange", "stopped"],
        ["others", "exchange", "active (no process)"],
    ]
    assert (orders["running"], others["running"]) == (False, False)
    assert ran.err == "No process runs others: start `saga-engine projector MODULE`.\n"


async def test_list_of_a_database_without_feeds_reports_it(migrated_url):
    ran = await command(migrated_url, "list")
    assert "No projector has registered a feed." in ran.out + ran.err


async def test_show_names_the_event_that_could_not_be_published(stopped, migrated_url):
    failure = (await feed(migrated_url))["failure"]
    assert (failure["position"], failure["stream"], failure["attempts"]) == (stopped, "order-1", 1)
    assert "run `saga-engine feeds retry orders --sink exchange" in failure["error"]
    ran = await command(migrated_url, "show", "orders")
    assert "The feed is stopped, see `error`. The event at `position` is the next one:" in ran.out
    assert "order-1" in ran.out
    assert (await feed(migrated_url, "others"))["failure"] is None
    ran = await command(migrated_url, "show", "others")
    assert "Every event up to the position was published" in ran.out


async def test_a_stopped_feed_is_retried(stopped, migrated_url):
    ran = await command(migrated_url, "retry", "orders", "--reason", "bound")
    assert ran.out == f"orders (exchange) goes on with the event at position {stopped}.\n"
    found = await feed(migrated_url)
    assert (found["state"], found["position"]) == ("active", stopped - 1)
    ran = await command(migrated_url, "retry", "orders", "--reason", "bound")
    assert (ran.exit_code, ran.out) == (4, "")


@pytest.mark.usefixtures("stopped")
async def test_a_feed_that_is_deleted_as_the_page_says_is_listed_no_more(migrated_url):
    (statement,) = re.findall(r"`(DELETE FROM saga_engine.feed .*?)`", CLI_PAGE)
    async with connected(migrated_url) as connection:
        await connection.execute(statement.replace("'tickets-down'", "'others'"))
        await connection.execute(statement.replace("'tickets-down'", "'orders'"))
    ran = await command(migrated_url, "list")
    assert "No projector has registered a feed." in ran.out + ran.err
    assert "No process runs" not in ran.err


async def test_an_event_is_discarded(stopped, migrated_url):
    ran = await command(migrated_url, "discard", "orders", str(stopped), "--reason", "a test")
    assert ran.out == f"orders (exchange) goes on without the event at position {stopped}.\n"
    assert (await feed(migrated_url))["position"] == stopped


async def test_a_feed_is_rewound(stopped, migrated_url):
    await command(migrated_url, "discard", "orders", str(stopped), "--reason", "a test")
    why = ("--reason", "billing lost its queue", "--operator", "mara")
    ran = await command(migrated_url, "rewind", "orders", "--to", "0", *why)
    assert ran.out == "orders (exchange) continues after position 0.\n"
    found = await feed(migrated_url)
    rewound, discarded = found["actions"]
    assert found["position"] == rewound["position"] == 0
    assert (rewound["action"], rewound["operator"], rewound["reason"]) == ("rewind", "mara", why[1])
    assert (discarded["action"], discarded["position"]) == ("discard", stopped)
    line = (await command(migrated_url, "show", "orders")).out.splitlines()[-2].split("\t")
    assert [*line[:3], *line[4:]] == ["rewind", "-", "0", "mara", "billing lost its queue"]


async def test_an_action_prints_a_document_if_asked(stopped, migrated_url):
    reason = ("--reason", "a test", "--json")
    rewound = {"rewound": "others", "sink": "exchange", "position": 0, "runs_complete_from": 1}
    for words, expected in [
        (
            ("retry", "orders", *reason),
            {"retried": "orders", "sink": "exchange", "position": stopped},
        ),
        (("rewind", "others", "--to", "0", "--json"), rewound),
    ]:
        assert (await command(migrated_url, *words)).json == {"schema_version": 1, **expected}


async def test_a_discarded_event_is_in_the_document(stopped, migrated_url):
    words = ("discard", "orders", str(stopped), "--reason", "a test", "--json")
    document = (await command(migrated_url, *words)).json
    assert document == {
        "schema_version": 1,
        "discarded": "orders",
        "sink": "exchange",
        "position": stopped,
    }


@pytest.mark.usefixtures("stopped")
async def test_the_nearest_feed_is_suggested(migrated_url):
    for words in (("show", "ordres"), ("retry", "ordres", "--reason", "a test")):
        ran = await command(migrated_url, *words)
        assert (ran.exit_code, "Did you mean orders?" in ran.err) == (3, True)


async def test_an_unknown_feed_is_not_found(migrated_url):
    ran = await command(migrated_url, "show", "other")
    assert ran.exit_code == 3
    assert "There is no feed 'other'" in ran.err


@pytest.fixture
async def dead_letter(migrated_url) -> int:
    """The position of an event that the webhook of `orders` has refused for too long."""
    event = order_event(8)
    database = Database(migrated_url, Settings(), ENGINE_DATABASE)
    async with database, database.transaction() as tx:
        await feed_table.register(tx, [HOOKS])
        await feed_table.acquire(tx, HOOKS, "host:1", 60.0)
        refusal = Refusal(event, "Webhook https://shop.example answered 401.", 0.0, 0.0)
        assert await waiting_streams.add(tx, HOOKS, "host:1", refusal)
    return event.position


async def test_a_stream_that_waits_for_a_webhook_is_shown(dead_letter, migrated_url):
    (listed,) = (await command(migrated_url, "list", "--json")).json["feeds"]
    assert (listed["sink"], listed["waiting_streams"], listed["dead_letters"]) == ("webhook", 1, 1)
    (shown,) = (await feed(migrated_url))["waiting"]
    assert (shown["stream"], shown["next_position"]) == ("order-o-1", dead_letter)
    assert shown["retry_at"] is None
    ran = await command(migrated_url, "show", "orders")
    assert "Stream order-o-1 waits: its next event is a dead letter." in ran.out
    assert "Webhook https://shop.example answered 401." in ran.out


async def test_a_dead_letter_of_a_webhook_is_retried_or_discarded(dead_letter, migrated_url):
    ran = await command(migrated_url, "retry", "orders", "--reason", "corrected")
    assert ran.out == f"orders (webhook) goes on with the event at position {dead_letter}.\n"
    (shown,) = (await feed(migrated_url))["waiting"]
    assert shown["retry_at"]
    wrong = str(dead_letter + 5)
    assert (await command(migrated_url, "discard", "orders", wrong, "--reason", "x")).exit_code == 3
    ran = await command(migrated_url, "discard", "orders", str(dead_letter), "--reason", "a test")
    assert ran.exit_code == 0
    found = await feed(migrated_url)
    assert found["waiting"][0]["next_position"] == dead_letter + 1
    assert [each["action"] for each in found["actions"]] == ["discard", "retry"]
