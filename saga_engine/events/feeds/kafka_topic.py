"""
The topic of a feed: made when it is missing, compared with the declaration when it exists.

An existing topic is never changed. Differences are shown, and another number of partitions stops
the feed: the events of a stream would be in another partition than the earlier ones.
"""

import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from threading import Event
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicDescription,
)

from saga_engine.events.feeds.confirmed_offsets import ConfirmedOffsets
from saga_engine.events.feeds.feed import KafkaOptions
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.feeds.kafka_client import (
    POLL_SECONDS,
    SILENT,
    TIMED_OUT,
    ErrorRecord,
    client_configuration,
    problem_of,
    reason_of,
)
from saga_engine.settings import Settings

_MILLISECOND = timedelta(milliseconds=1)
_UNLIMITED = "-1"
_AS_SENT = "producer"
"""The `compression.type` of a topic that keeps messages as the feed has compressed them."""
_NO_RIGHT = ("TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicCheck:
    """
    What is known of a topic.

    Args:
        name: and id of the topic, which another topic of that name does not have.
        is_missing: it does not exist, and is not created.
        problem: why nothing can be published to it now; the check is repeated.
        refusal: why nothing can be published to it until an operator has acted.
        differences: from what the feed declares, each as a sentence.
        max_message_bytes: the smaller one of the feed's limit and the topic's.
    """

    name: str = ""
    is_missing: bool = False
    problem: str | None = None
    refusal: str | None = None
    differences: tuple[str, ...] = ()
    max_message_bytes: int = 0


class KafkaTopic:
    """
    The topic that a feed declares. Its methods block, so they are called in a thread.

    Args:
        key: of the feed, for the commands in sentences.
        options: what the feed declares.
        settings: where Kafka is.
        closing: when it is set, methods return early.
    """

    def __init__(
        self, key: FeedKey, options: KafkaOptions, settings: Settings, closing: Event
    ) -> None:
        self._key = key
        self._options = options
        self._closing = closing
        self._replication = settings.kafka_replication or options.replication
        self._configuration = client_configuration(settings)

    def check(
        self, published_until: int, confirmed: ConfirmedOffsets, seconds: float
    ) -> TopicCheck:
        """
        Compare the topic with what the feed declares.

        Args:
            published_until: the position of the feed; at 0 a missing topic is created. Later one
                it has been deleted, and its events with it: that is for an operator to decide.
            confirmed: what Kafka has confirmed of a topic; that must still be there.
            seconds: how long that may take.
        """
        errors = ErrorRecord()
        configuration: dict[str, Any] = {**self._configuration, "error_cb": errors}
        try:
            admin = AdminClient(configuration, logger=SILENT)
            requests = _Requests(admin, self._closing, time.monotonic() + seconds)
            return self._check(requests, published_until, confirmed)
        except KafkaException as error:
            reason = reason_of(error.args[0], errors)
            return TopicCheck(problem=problem_of(reason, self._options.topic))

    def _check(
        self, requests: "_Requests", published_until: int, confirmed: ConfirmedOffsets
    ) -> TopicCheck:
        found = requests.describe(self._options.topic)
        if found is None and published_until:
            return TopicCheck(is_missing=True, problem=self._missing(published_until))
        found = found or self._create(requests)
        if found is None:
            return TopicCheck(problem=f"Topic {self._options.topic!r} is being created.")
        if len(found.partitions) != self._options.partitions:
            return TopicCheck(refusal=self._wrong_partitions(found, published_until))
        name = f"{found.name} {found.topic_id}"
        if confirmed.topic == name and (lost := self._lost(requests, confirmed, published_until)):
            return TopicCheck(name=name, problem=lost)
        try:
            stored = requests.configuration(self._options.topic)
        except KafkaException as error:
            if error.args[0].name() not in _NO_RIGHT:
                raise
            return self._incomparable(name, found, error.args[0])
        return TopicCheck(
            name=name,
            differences=(*self._other_replication(found), *self._other_configuration(stored)),
            max_message_bytes=min(
                self._options.max_message_bytes,
                int(stored.get("max.message.bytes", self._options.max_message_bytes)),
            ),
        )

    def _create(self, requests: "_Requests") -> TopicDescription | None:
        """Create the topic; None while Kafka does not show it yet."""
        options = self._options
        new = NewTopic(options.topic, options.partitions, self._replication, config=self._wanted())
        requests.create(new)
        return requests.describe(options.topic)

    def _wanted(self) -> dict[str, str]:
        """Return the configuration of a new topic."""
        options = self._options
        retention = options.retention
        compression = options.compression
        return {
            "cleanup.policy": "delete",
            "retention.ms": _UNLIMITED if retention is None else str(retention // _MILLISECOND),
            "compression.type": "uncompressed" if compression == "none" else compression,
            "max.message.bytes": str(options.max_message_bytes),
        }

    def _other_configuration(self, stored: Mapping[str, str]) -> list[str]:
        wanted = self._wanted()
        accepted = {name: {value} for name, value in wanted.items()}
        accepted["compression.type"].add(_AS_SENT)
        return [
            f"{name} of topic {self._options.topic!r} is {stored[name]}; the feed declares {value}."
            for name, value in wanted.items()
            if name in stored and stored[name] not in accepted[name]
        ]

    def _other_replication(self, found: TopicDescription) -> list[str]:
        replication = min(len(each.replicas) for each in found.partitions)
        if replication == self._options.replication:
            return []
        topic, declared = self._options.topic, self._options.replication
        return [
            f"The replication of topic {topic!r} is {replication}; the feed declares {declared}."
        ]

    def _incomparable(self, name: str, found: TopicDescription, error: KafkaError) -> TopicCheck:
        """Without the right to read the configuration, the feed goes on with its own limits."""
        difference = (
            f"The configuration of topic {self._options.topic!r} cannot be compared:"
            f" {error.str().rstrip('.')}. Grant DESCRIBE_CONFIGS on it."
        )
        return TopicCheck(
            name=name,
            differences=(*self._other_replication(found), difference),
            max_message_bytes=self._options.max_message_bytes,
        )

    def _wrong_partitions(self, found: TopicDescription, published_until: int) -> str:
        topic, declared = self._options.topic, self._options.partitions
        partitions = len(found.partitions)
        # Many clusters make a topic for a client that asks for a missing one.
        delete = "" if published_until else ", or delete it if it was made by a reader and is empty"
        return (
            f"Topic {topic!r} has {partitions} partition{'s' * (partitions > 1)}, and the feed"
            f" declares {declared}. With another number the events of a stream are in another"
            " partition than its earlier ones, so consumers lose their order. Declare"
            f" partitions={partitions}, or another topic{delete}. Then run"
            f" `{self._key.retry_command}`."
        )

    def _missing(self, published_until: int) -> str:
        return (
            f"Topic {self._options.topic!r} does not exist, but the feed has published up to"
            f" position {published_until}: it was deleted. `{self._key.rewind_command}`"
            " creates it and publishes all events again; if you create it, the feed continues."
        )

    def _lost(
        self, requests: "_Requests", confirmed: ConfirmedOffsets, published_until: int
    ) -> str | None:
        """Return the sentence on the first partition that has lost confirmed events."""
        ends = requests.ends(self._options.topic, len(confirmed.ends))
        for number, (end, least) in enumerate(zip(ends, confirmed.ends, strict=True)):
            if end < least:
                return (
                    f"Partition {number} of topic {self._options.topic!r} ends at offset {end:,},"
                    f" but Kafka had confirmed events of this feed up to offset {least - 1:,}: it"
                    " has lost them, as after an unclean election of a leader."
                    f" `{self._key.rewind_command}` publishes all events again, with the same ids;"
                    " the ce_sequence of the last message that the partition has, instead of 0,"
                    " publishes those after it. To go on without the lost ones, give"
                    f" {max(0, published_until - 1)}."
                )
        return None


class _Requests:
    """Requests of one check: each ends at the deadline, or when the process stops."""

    def __init__(self, admin: AdminClient, closing: Event, deadline: float) -> None:
        self._admin = admin
        self._closing = closing
        self._deadline = deadline

    def describe(self, topic: str) -> TopicDescription | None:
        """Describe a topic; None if it does not exist. Kafka does not create it by that."""
        request = self._admin.describe_topics(TopicCollection([topic]), **self._timeout())[topic]
        try:
            found: TopicDescription = self._result(request)
        except KafkaException as error:
            if error.args[0].name() == "UNKNOWN_TOPIC_OR_PART":
                return None
            raise
        return found

    def create(self, new: NewTopic) -> None:
        """Create a topic, unless another process has just done it."""
        try:
            self._result(self._admin.create_topics([new], **self._timeout())[new.topic])
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise

    def ends(self, topic: str, partitions: int) -> list[int]:
        """Return the offset at which each partition of a topic ends."""
        end = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # of theirs
        latest = {TopicPartition(topic, each): end for each in range(partitions)}
        requests = self._admin.list_offsets(latest, **self._timeout())
        by_partition = {each.partition: requests[each] for each in latest}
        return [self._result(by_partition[each]).offset for each in range(partitions)]

    def configuration(self, topic: str) -> dict[str, str]:
        """Read the configuration of a topic."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        request = self._admin.describe_configs([resource], **self._timeout())[resource]
        return {name: entry.value for name, entry in self._result(request).items()}

    def _timeout(self) -> dict[str, float]:
        return {"request_timeout": max(POLL_SECONDS, self._deadline - time.monotonic())}

    def _result(self, request: "Future[Any]") -> Any:
        while not request.done():
            self._admin.poll(POLL_SECONDS)
            if self._closing.is_set():
                raise KafkaException(TIMED_OUT)
        return request.result()
