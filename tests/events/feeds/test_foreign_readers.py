"""Programs that know docs/protocol.md and no module of saga-engine read JSON and Avro."""

import asyncio
import json
import os
import re
import sys
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from saga_engine.events.event_store.event_log import EventLog
from tests.kit.avro_events import Placed, PlacedAbroad, avro_feed, place, register
from tests.kit.command_line import REPOSITORY, environment
from tests.kit.feeds import every_event, wait_for_feed
from tests.kit.kafka_feeds import running_kafka_feeds
from tests.kit.kafka_topics import new_topic
from tests.kit.published_event import DOCUMENT

pytestmark = pytest.mark.long

FOREIGN = REPOSITORY / "tests" / "foreign"
PROGRAMS = ("read_kafka", "read_stream")


async def run_reader(program, database_url, *arguments):
    """What a reader prints, a document for each message."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.foreign.{program}", *map(str, arguments)),
        cwd=REPOSITORY,
        env=environment(database_url=database_url) | {"PATH": path},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


async def publish_in_both(run, events, database, feed_of, name):
    """One event in JSON, and two in Avro of two schemas, by one feed that was changed between."""
    await register(database, Placed)
    await place(events, "order-1", Placed(customer="mara", total=Decimal("12.50")))
    async with run(feed_of(encoding="json")):
        await wait_for_feed(database, await events.position(), name)
    await place(events, "order-1", Placed(customer="ada", total=Decimal("0.10")))
    await register(database, PlacedAbroad)
    abroad = PlacedAbroad(customer="grace", total=Decimal("-3.00"), currency="DKK")
    await place(events, "order-1", abroad)
    async with run(feed_of(encoding="avro")):
        await wait_for_feed(database, await events.position(), name)


async def check(read, events, database):
    async with database.transaction() as tx:
        log = await EventLog.load(tx)
    assert [each["content_type"] for each in read] == [
        "application/json",
        "application/avro",
        "application/avro",
    ]
    for found, event in zip(read, await every_event(events), strict=True):
        assert found["data"] == event.data
        assert (found["specversion"], found["source"]) == ("1.0", log.id.urn)
        assert (found["id"], found["type"]) == (str(event.id), "order-placed")
        assert (found["subject"], int(found["streamversion"])) == ("order-1", event.version)
        assert (int(found["sequence"]), found["schemaversion"]) == (event.position, "1")
        assert found["dataschema"] == f"{log.id.urn}#schema/{event.schema_id}"


async def test_a_program_with_confluent_kafka_alone_reads_a_topic(
    events, event_url, kafka, feed_database
):
    topic = new_topic()

    def run(feed):
        return running_kafka_feeds(event_url, kafka.servers, [feed])

    def feed_of(**options):
        return avro_feed("kafka", topic, **options)

    await publish_in_both(run, events, feed_database, feed_of, "to-kafka")
    read = await run_reader("read_kafka", event_url, kafka.servers, topic, 3)
    await check(read, events, feed_database)


@pytest.mark.rabbitmq
async def test_a_program_with_pika_alone_reads_a_stream(
    events, event_url, rabbitmq_url, stream_database, run_feed
):
    @asynccontextmanager
    async def run(feed):
        async with run_feed(feed):
            yield

    def feed_of(**options):
        return avro_feed("stream", "orders", name="orders", **options)

    await publish_in_both(run, events, stream_database, feed_of, "orders")
    read = await run_reader("read_stream", event_url, rabbitmq_url, "orders", 3)
    await check(read, events, stream_database)


def test_the_readers_have_what_the_document_shows_and_nothing_of_saga_engine():
    code = (FOREIGN / "event_data.py").read_text()
    [shown] = re.findall(r"event_data.py has this -->\n```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert code.partition('"""\n\n')[2] == shown
    for program in PROGRAMS:
        assert "saga_engine" not in (FOREIGN / f"{program}.py").read_text() + code
