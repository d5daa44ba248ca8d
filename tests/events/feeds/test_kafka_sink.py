"""A topic receives each event in the order of its stream, through faults of Kafka."""

import asyncio
from typing import Any

import pytest

from saga_engine.errors import ConfigurationError
from saga_engine.events.feeds.confirmed_offsets import ConfirmedOffsets
from saga_engine.protocol.message import PublishOutcome
from tests.kit.kafka_feeds import (
    PARTITIONS,
    kafka_options,
    open_sink,
    publish_all,
    some_events,
    unconfirmed,
)
from tests.kit.kafka_topics import (
    check_records,
    create_topic,
    delete_topic,
    limit_messages,
    new_topic,
    read_topic,
)
from tests.kit.programs import wait_until_true
from tests.kit.proxy import TcpProxy, running_proxy
from tests.kit.servers import crashing_kafka

CONFIRMED = PublishOutcome.CONFIRMED
NOWHERE = "127.0.0.1:1"


@pytest.fixture
async def proxy(kafka):
    """A proxy before the server; its URL has the address of the server in `netloc`."""
    async with running_proxy(f"tcp://{kafka.servers}") as running:
        running.from_server.rewrite = kafka.addressed(running.url)
        yield running


def servers_at(proxy: TcpProxy) -> str:
    return proxy.url.removeprefix("tcp://")


@pytest.mark.parametrize(
    "compression",
    [
        *("none", "snappy", "zstd"),
        *(pytest.param(each, marks=pytest.mark.long) for each in ("gzip", "lz4")),
    ],
)
async def test_events_of_a_stream_are_in_one_partition_in_their_order(kafka, compression):
    topic, events = new_topic(), some_events(600)
    async with open_sink(kafka.servers, kafka_options(topic, compression=compression)) as sink:
        for first in range(0, len(events), 200):
            batch = events[first : first + 200]
            assert await sink.publish(batch) == [PublishOutcome.CONFIRMED] * len(batch)
    records = await read_topic(kafka.servers, topic)
    check_records(records, events)
    assert len(records) == len(events)
    assert {each.partition for each in records} == set(range(PARTITIONS))


async def test_a_stream_is_in_the_partition_that_the_clients_of_other_languages_choose(kafka):
    """Computed by aiokafka, which has the formula of Kafka's Java client."""
    from aiokafka.partitioner import DefaultPartitioner  # noqa: PLC0415 - a tool of this test

    topic, events = new_topic(), some_events(200)
    async with open_sink(kafka.servers, kafka_options(topic)) as sink:
        await publish_all(sink, events)
    partitions = list(range(PARTITIONS))
    for record in await read_topic(kafka.servers, topic):
        expected = DefaultPartitioner()(record.key.encode(), partitions, partitions)
        assert record.partition == expected


async def test_an_event_over_the_limit_stops_the_feed_after_those_before_it(kafka):
    topic = new_topic()
    events = [*some_events(3), *some_events(1, after=3, size=5_000), *some_events(3, after=4)]
    async with open_sink(kafka.servers, kafka_options(topic, max_message_bytes=2_000)) as sink:
        outcomes = await sink.publish(events)
        assert outcomes[:4] == [PublishOutcome.CONFIRMED] * 3 + [PublishOutcome.UNPUBLISHABLE]
        assert PublishOutcome.CONFIRMED not in outcomes[4:]
        sentence = sink.explain(events[3], outcomes[3])
        assert "5,4" in sentence
        assert f"the limit of topic '{topic}' is 2,000" in sentence
        assert "`saga-engine feeds retry to-kafka --sink kafka --reason TEXT`" in sentence
    check_records(await read_topic(kafka.servers, topic), events[:3])


async def test_the_limit_of_a_topic_that_exists_counts(kafka):
    topic = new_topic()
    await create_topic(kafka.servers, topic, max_message_bytes=2_000)
    async with open_sink(kafka.servers, kafka_options(topic)) as sink:
        [outcome] = await sink.publish(some_events(1, size=5_000))
        assert outcome is PublishOutcome.UNPUBLISHABLE
        await publish_all(sink, some_events(500, size=100))  # a batch may be larger


async def test_a_limit_that_was_lowered_is_noticed(kafka):
    topic = new_topic()
    options = kafka_options(topic, compression="none")
    async with open_sink(kafka.servers, options) as sink:
        first = some_events(10)
        await publish_all(sink, first)
        await limit_messages(kafka.servers, topic, 2_000)
        events = some_events(2, after=10, size=1_500)
        large = some_events(1, after=12, size=5_000)
        waiting = [*events, *large]
        while PublishOutcome.UNPUBLISHABLE not in (outcomes := await sink.publish(waiting)):
            waiting = unconfirmed(waiting, outcomes)
        assert outcomes[-1] is PublishOutcome.UNPUBLISHABLE
    check_records(await read_topic(kafka.servers, topic), [*first, *events])


async def test_another_number_of_partitions_stops_the_feed(kafka):
    topic, events = new_topic(), some_events(2)
    await create_topic(kafka.servers, topic, partitions=5)
    async with open_sink(kafka.servers, kafka_options(topic)) as sink:
        outcomes = await sink.publish(events)
        assert outcomes == [PublishOutcome.UNPUBLISHABLE] * 2
        assert sink.explain(events[0], outcomes[0]).startswith(
            f"Topic '{topic}' has 5 partitions, and the feed declares 3."
        )
    assert await read_topic(kafka.servers, topic) == []


@pytest.mark.parametrize("is_resumed", [pytest.param(True, marks=pytest.mark.long), False])
async def test_a_deleted_topic_is_made_again_only_by_an_operator(kafka, is_resumed):
    topic = new_topic()
    async with open_sink(kafka.servers, kafka_options(topic)) as sink:
        await publish_all(sink, some_events(5))
        if is_resumed:
            await sink.resume(5)
        await delete_topic(kafka.servers, topic)
        more = some_events(5, after=5)
        for _ in range(2):
            assert PublishOutcome.CONFIRMED not in await sink.publish(more)
        problem = str(sink.problem)
        assert f"Topic '{topic}' does not exist" in problem
        assert "`saga-engine feeds rewind to-kafka --sink kafka --to 0` creates it" in problem
        await create_topic(kafka.servers, topic)
        await publish_all(sink, more)
        assert sink.problem is None
        check_records(await read_topic(kafka.servers, topic), more)


async def test_a_rewound_feed_makes_a_deleted_topic(kafka):
    topic, events = new_topic(), some_events(5)
    async with open_sink(kafka.servers, kafka_options(topic), position=3) as sink:
        assert "does not exist" in str(sink.problem)
        await sink.resume(0)
        await publish_all(sink, events)
    check_records(await read_topic(kafka.servers, topic), events)


async def test_the_sink_waits_for_a_server_that_is_unreachable(kafka, proxy):
    topic, events = new_topic(), some_events(50)
    await proxy.refuse()
    async with open_sink(servers_at(proxy), kafka_options(topic)) as sink:
        assert "Kafka is unavailable" in str(sink.problem)
        assert await sink.publish(events) == [PublishOutcome.NACKED] * 50
        await proxy.accept()

        async def is_available() -> bool:
            await sink.publish(())
            return sink.problem is None

        await wait_until_true(is_available)
        await publish_all(sink, events)
    check_records(await read_topic(kafka.servers, topic), events)


@pytest.mark.parametrize(
    "fault",
    [
        "reset",
        *(
            pytest.param(each, marks=pytest.mark.long)
            for each in ("half-open", "lost answers", "slow")
        ),
    ],
)
async def test_every_event_arrives_in_order_through_a_fault_of_the_network(
    kafka, proxy, fault: str
):
    topic, events = new_topic(), some_events(400, size=200)
    async with open_sink(servers_at(proxy), kafka_options(topic, compression="none")) as sink:
        await publish_all(sink, events[:20])
        match fault:
            case "reset":
                proxy.from_client.rewrite = Once(proxy.reset)
            case "half-open":
                proxy.drop_open_connections()
            case "lost answers":
                proxy.drop_server_data()
                outcomes = await sink.publish(events[20:])
                assert set(outcomes) == {PublishOutcome.UNKNOWN}
                assert sink.problem
                proxy.clear_faults()
            case _:
                proxy.bytes_per_s = 100_000
        await publish_all(sink, events[20:])
        assert sink.problem is None
    check_records(await read_topic(kafka.servers, topic), events)


class Once:
    """Does something at the first data that is large enough to be events, and forwards it."""

    def __init__(self, action) -> None:
        self._action = action

    def __call__(self, data: bytes) -> bytes:
        if len(data) > 1_000 and self._action:
            action, self._action = self._action, None
            action()
        return data


async def test_a_server_that_crashed_keeps_what_it_has_confirmed(kafka_is_installed):
    topic, events = new_topic(), some_events(300)
    async with crashing_kafka() as server:
        async with open_sink(server.servers, kafka_options(topic)) as sink:
            for first in range(0, len(events), 100):
                await publish_all(sink, events[first : first + 100])
                await server.restart()
        check_records(await read_topic(server.servers, topic), events)


async def test_a_topic_that_has_lost_confirmed_events_gets_no_others(kafka_is_installed):
    """They would follow a hole. The next process finds it, too, from what was saved."""
    topic, events = new_topic(), some_events(100)
    async with crashing_kafka() as server:
        async with open_sink(server.servers, kafka_options(topic)) as sink:
            await publish_all(sink, events[:40])
            async with server.losing():
                await publish_all(sink, events[40:80])
            confirmed = sink.confirmed_offsets
            assert await publish_until_problem(sink, events[80:]) == set()
            assert "Kafka had confirmed events of this feed up to" in str(sink.problem)
        async with open_sink(server.servers, kafka_options(topic), 80, confirmed) as sink:
            problem = str(sink.problem)
            assert f"of topic '{topic}' ends at offset" in problem
            assert (
                "`saga-engine feeds rewind to-kafka --sink kafka --to 0` publishes all" in problem
            )
            assert problem.endswith("To go on without the lost ones, give 79.")
        check_records(await read_topic(server.servers, topic), events[:40])


async def publish_until_problem(sink, events):
    """Publish until the sink has a problem that is not the connection; what was confirmed."""
    confirmed = set()
    async with asyncio.timeout(60):
        while "Partition" not in str(sink.problem):
            outcomes = zip(events, await sink.publish(events), strict=True)
            confirmed |= {each.id for each, outcome in outcomes if outcome is CONFIRMED}
    return confirmed


async def test_another_topic_of_the_same_name_has_lost_nothing(kafka):
    topic, events = new_topic(), some_events(5)
    await create_topic(kafka.servers, topic)
    earlier = ConfirmedOffsets(f"{topic} another-id", (100, 100, 100))
    async with open_sink(kafka.servers, kafka_options(topic), 5, earlier) as sink:
        await publish_all(sink, events)
        assert sum(sink.confirmed_offsets.ends) == len(events)
    check_records(await read_topic(kafka.servers, topic), events)


async def test_a_cancelled_publish_ends_although_kafka_is_unavailable():
    options = kafka_options("orders")
    async with asyncio.timeout(10):
        async with open_sink(
            NOWHERE, options, projection_lease=0.3, kafka_request_timeout=60.0
        ) as sink:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await sink.publish(some_events(1))


async def test_settings_that_the_library_refuses_are_an_error_at_the_start(tmp_path):
    settings: Any = {"kafka_security_protocol": "ssl", "kafka_ca_file": str(tmp_path / "none.pem")}
    with pytest.raises(ConfigurationError, match="does not accept the settings of Kafka"):
        async with open_sink(NOWHERE, kafka_options("orders"), **settings):
            pass
