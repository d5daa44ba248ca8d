import pytest

from saga_engine.events import Append, Events
from saga_engine.settings import Settings
from saga_engine.telemetry.events import RunFinished
from tests.kit.command_line import saga_engine
from tests.kit.event_database import connected, placed


@pytest.fixture
async def event_store(migrated_url):
    async with Events(migrated_url, settings=Settings()) as client:
        yield client


async def test_read_prints_the_events_of_a_stream_in_order(event_store, migrated_url):
    await event_store.append(
        Append("order-1", [placed(1), placed(2)]), Append("order-2", [placed(3)])
    )
    ran = await saga_engine("streams", "read", "order-1", database_url=migrated_url)
    header, first, second = [line.split("\t") for line in ran.out.splitlines()]
    assert header == ["version", "position", "at", "event", "schema", "data"]
    assert [first[0], *first[3:]] == ["1", "order-placed", "1", '{"number":1}']
    assert [second[0], *second[3:]] == ["2", "order-placed", "1", '{"number":2}']
    assert int(first[1]) < int(second[1])
    assert (ran.exit_code, ran.err) == (0, "2 events.\n")


async def test_an_event_that_cannot_be_read_hides_no_other(event_store, migrated_url):
    """Another program has inserted it: no command could show the events after it."""
    async with connected(migrated_url) as other:
        await other.execute(
            "INSERT INTO saga_engine.stream_event"
            " (stream, version, type, schema_version, data, metadata)"
            " VALUES ('order-1', 1, 'order-placed', 1, '1e400', '{}'),"
            f" ('order-1', 2, 'order-placed', 1, '{'[' * 300}{']' * 300}', '{{}}')"
        )
    await event_store.append(Append("order-1", [placed(3)]))
    read = ("streams", "read", "order-1")
    ran = await saga_engine(*read, database_url=migrated_url)
    data = [line.split("\t")[-1] for line in ran.out.splitlines()[1:]]
    assert [each[:20] for each in data] == [
        "(its data cannot be ",
        "(its data cannot be ",
        '{"number":3}',
    ]
    ran = await saga_engine(*read, "--json", database_url=migrated_url)
    events = ran.json["events"]
    assert [each["data"] for each in events] == [None, None, {"number": 3}]
    assert ["cannot be read" in each.get("unreadable", "") for each in events] == [
        True,
        True,
        False,
    ]


async def test_pages_follow_each_other_without_a_gap(event_store, migrated_url):
    await event_store.append(Append("order-1", [placed(n) for n in range(5)]))
    pages = []
    for after in (0, 2, 4):
        ran = await saga_engine(
            *("streams", "read", "order-1", "--limit", 2, "--after", after, "--json"),
            database_url=migrated_url,
        )
        versions = [each["version"] for each in ran.json["events"]]
        pages.append((versions, ran.json["next"]))
    assert pages == [([1, 2], 2), ([3, 4], 4), ([5], None)]
    ran = await saga_engine("streams", "read", "order-1", "--limit", 2, database_url=migrated_url)
    assert ran.err == "2 events. Next page: saga-engine streams read order-1 --limit 2 --after 2\n"


async def test_a_page_does_not_divide_the_events_of_one_version(engine):
    run_id = await engine.start_run("greet", "Ann")
    await engine.events.wait_for_next(RunFinished)
    pages = []
    for after in (0, 1):
        ran = await engine(
            *("streams", "read", f"run-{run_id}", "--limit", 1, "--after", after, "--json")
        )
        found = [(each["version"], each["place"], each["type"]) for each in ran.json["events"]]
        pages.append((found, ran.json["next"]))
    assert pages == [
        ([(1, 0, "run_started"), (1, 1, "attempt_started")], 1),
        ([(2, 0, "step_succeeded"), (2, 1, "run_completed")], None),
    ]


async def test_an_unknown_stream_and_an_invalid_page_are_sentences(migrated_url):
    unknown = await saga_engine("streams", "read", "order-9", database_url=migrated_url)
    assert (unknown.exit_code, unknown.out) == (3, "")
    assert "There is no stream 'order-9' in this database" in unknown.err
    for options in (("--limit", 0), ("--after", -1)):
        ran = await saga_engine("streams", "read", "x-1", *options, database_url=migrated_url)
        assert (ran.exit_code, len(ran.err.splitlines())) == (2, 1)


async def test_a_database_without_event_tables_is_a_sentence(postgres):
    url = await postgres.create_database("no_event_tables")
    ran = await saga_engine("streams", "read", "order-1", database_url=url)
    assert ran.exit_code == 5
    assert "saga-engine migrate --events" in ran.err
