"""A topic is created as a feed declares it, and compared and not changed when it exists."""

from datetime import timedelta
from threading import Event

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from saga_engine.events.feeds.confirmed_offsets import NO_OFFSETS
from saga_engine.events.feeds.kafka_topic import KafkaTopic, TopicCheck
from saga_engine.settings import Settings
from tests.kit.kafka_feeds import FAST, TO_KAFKA, kafka_options
from tests.kit.kafka_topics import create_topic, new_topic

SECONDS = 20.0


def check(servers: str, options, published_until: int = 0, **settings) -> TopicCheck:
    chosen = Settings(**{"kafka_bootstrap_servers": servers, **FAST, **settings})
    return KafkaTopic(TO_KAFKA, options, chosen, Event()).check(
        published_until, NO_OFFSETS, SECONDS
    )


def configuration(servers: str, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient({"bootstrap.servers": servers})
    request = admin.describe_configs([resource])[resource]
    return {name: entry.value for name, entry in request.result(SECONDS).items()}


async def test_a_missing_topic_is_created_as_declared(kafka):
    topic = new_topic()
    options = kafka_options(topic, retention=timedelta(hours=1), max_message_bytes=5_000)
    found = check(kafka.servers, options)
    assert found == TopicCheck(name=found.name, max_message_bytes=5_000)
    assert found.name.startswith(f"{topic} ")
    stored = configuration(kafka.servers, topic)
    assert (stored["retention.ms"], stored["max.message.bytes"]) == ("3600000", "5000")
    assert (stored["compression.type"], stored["cleanup.policy"]) == ("snappy", "delete")
    assert check(kafka.servers, options) == found


async def test_events_are_kept_forever_and_uncompressed_where_that_is_declared(kafka):
    topic = new_topic()
    options = kafka_options(topic, retention=None, compression="none")
    check(kafka.servers, options)
    stored = configuration(kafka.servers, topic)
    assert (stored["retention.ms"], stored["compression.type"]) == ("-1", "uncompressed")
    assert check(kafka.servers, options).differences == ()


async def test_every_difference_is_a_sentence_and_nothing_is_changed(kafka):
    topic = new_topic()
    await create_topic(
        kafka.servers,
        topic,
        cleanup_policy="compact",
        retention_ms=60_000,
        compression_type="gzip",
        max_message_bytes=2_000,
    )
    before = configuration(kafka.servers, topic)
    found = check(kafka.servers, kafka_options(topic, replication=3), kafka_replication=None)
    assert found.differences == (
        f"The replication of topic '{topic}' is 1; the feed declares 3.",
        f"cleanup.policy of topic '{topic}' is compact; the feed declares delete.",
        f"retention.ms of topic '{topic}' is 60000; the feed declares 604800000.",
        f"compression.type of topic '{topic}' is gzip; the feed declares snappy.",
        f"max.message.bytes of topic '{topic}' is 2000; the feed declares 1048576.",
    )
    assert (found.problem, found.refusal, found.max_message_bytes) == (None, None, 2_000)
    assert configuration(kafka.servers, topic) == before


async def test_a_topic_that_keeps_messages_as_they_were_sent_does_not_differ(kafka):
    topic = new_topic()
    await create_topic(
        kafka.servers,
        topic,
        retention_ms=604_800_000,
        compression_type="producer",
        max_message_bytes=1_048_576,
    )
    assert check(kafka.servers, kafka_options(topic)).differences == ()


async def test_a_setting_gives_the_replication_of_a_new_topic_and_the_difference_is_shown(kafka):
    topic = new_topic()
    found = check(kafka.servers, kafka_options(topic, replication=3), kafka_replication=1)
    assert found.differences == (f"The replication of topic '{topic}' is 1; the feed declares 3.",)


async def test_a_replication_without_so_many_servers_names_the_setting(kafka):
    found = check(kafka.servers, kafka_options(new_topic(), replication=3), kafka_replication=None)
    assert "SAGA_ENGINE_KAFKA_REPLICATION" in str(found.problem)


async def test_a_topic_is_not_created_for_a_feed_that_has_published(kafka):
    topic = new_topic()
    assert "it was deleted" in str(check(kafka.servers, kafka_options(topic), 41).problem)
    assert "position 41" in str(check(kafka.servers, kafka_options(topic), 41).problem)


@pytest.mark.parametrize("partitions", [1, 4])
async def test_another_number_of_partitions_is_a_refusal(kafka, partitions):
    topic = new_topic()
    await create_topic(kafka.servers, topic, partitions)
    found = check(kafka.servers, kafka_options(topic))
    noun = "partition" if partitions == 1 else "partitions"
    assert f"has {partitions} {noun}, and the feed declares 3" in str(found.refusal)
    assert "delete it if it was made by a reader and is empty" in str(found.refusal)
    published = check(kafka.servers, kafka_options(topic), 41)
    assert "delete it" not in str(published.refusal)
