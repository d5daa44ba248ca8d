"""
What the author declares: a feed, which of the events it selects, and where it publishes them.

A feed publishes in the order of each stream, and an event at least once, always with the same id.
`docs/protocol.md`, sections 14 to 16, is what a consumer relies on.
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar

from saga_engine.errors import DefinitionError


class Unroutable(StrEnum):
    """What happens to an event that no queue is bound for."""

    SKIP = "skip"  # it is counted, and published to no queue
    STOP = "stop"  # the feed stops at it, until an operator retries or discards it


class Sink(StrEnum):
    """Where the events of a feed go."""

    EXCHANGE = "exchange"  # the exchange `saga.feed`
    STREAM = "stream"  # a stream of RabbitMQ
    KAFKA = "kafka"  # a topic of Kafka
    WEBHOOK = "webhook"  # a URL that receives each event as a request


class Encoding(StrEnum):
    """How the data of an event is written in the body of its message."""

    JSON = "json"
    AVRO = "avro"  # in the frame of a schema registry; needs saga-engine[avro]


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """A feed's events go to the exchange `saga.feed`."""

    sink: ClassVar[Sink] = Sink.EXCHANGE

    unroutable: Unroutable | str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """A feed's events go to a stream of RabbitMQ; see `Feed.to_stream`."""

    sink: ClassVar[Sink] = Sink.STREAM

    stream: str
    partitions: int
    max_age: timedelta | None
    max_bytes: int | None
    segment_bytes: int
    encoding: Encoding | str


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """A feed's events go to a URL; see `Feed.to_webhook`."""

    sink: ClassVar[Sink] = Sink.WEBHOOK

    url: str = field(repr=False)
    secret: str


class Compression(StrEnum):
    """How the messages of a Kafka topic are compressed."""

    NONE = "none"
    GZIP = "gzip"
    SNAPPY = "snappy"
    LZ4 = "lz4"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """A feed's events go to a topic of Kafka; see `Feed.to_kafka`."""

    sink: ClassVar[Sink] = Sink.KAFKA

    topic: str
    partitions: int
    replication: int
    retention: timedelta | None
    compression: Compression | str
    max_message_bytes: int
    encoding: Encoding | str


SinkOptions = ExchangeOptions | StreamOptions | KafkaOptions | WebhookOptions
"""What an author declares about one sink of a feed."""


class Feed:
    """
    A subscription to the events of a database, whose events are published.

        feed = Feed("orders", streams=["order-*"])
        feed.to_exchange()

    A new feed begins with the first event of the database.

    Args:
        name: lower case, digits, `-` and `_`; at most 64 characters. Its position is stored under
            this name.
        streams: only these streams, or `order-*` for all that begin with `order-`; the streams of
            runs are `run-*`. None: all.
        types: only events of these types, as the classes that aggregates declare or by their
            names; None: all.
    """

    def __init__(
        self,
        name: str,
        *,
        streams: Collection[str] | None = None,
        types: Collection[str | type] | None = None,
    ) -> None:
        frame = sys._getframe(1)  # noqa: SLF001 - the only way to the line a constructor is called on
        self.source_location = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.name = name
        self.streams = streams
        self.types = types
        self.sinks: dict[Sink, SinkOptions] = {}

    def __repr__(self) -> str:
        return f"Feed({self.name!r}, streams={self.streams!r}, types={self.types!r})"

    def to_exchange(self, *, unroutable: Unroutable | str = Unroutable.SKIP) -> None:
        """
        Publish to the exchange `saga.feed`, with routing key `<category>.<type>`.

        Args:
            unroutable: whether an event that no queue is bound for is skipped and counted, or stops
                the feed. Choose "stop" if a consumer must not miss events that are published before
                its queue is bound, or while its binding is missing.

        Raises:
            DefinitionError: the feed has this sink already.
        """
        self._add(ExchangeOptions(unroutable))

    def to_stream(
        self,
        stream: str,
        *,
        partitions: int = 1,
        max_age: timedelta | None = timedelta(days=7),
        max_bytes: int | None = None,
        segment_bytes: int = 500_000_000,
        encoding: Encoding | str = Encoding.JSON,
    ) -> None:
        """
        Publish to a stream of RabbitMQ; needs `saga-engine[streams]`.

        A stream that is missing is created as declared. One that exists is compared and not
        changed: `feeds show` has the differences, and another number of partitions stops the feed.

        Args:
            stream: its name: letters, digits, `.`, `-` and `_`; at most 200 characters. Several
                partitions are the streams `<name>-0`, `<name>-1` and so on of a super stream.
            partitions: 1 to 200. All events of a stream of the database are in one of them. A
                change later needs another name.
            max_age: how long RabbitMQ keeps events, from 1 second; None: without end.
            max_bytes: how much it keeps of each partition, at least `segment_bytes`; None: without
                a limit.
            segment_bytes: the size of its files, 1,000 to 3,000,000,000. Only whole files are
                deleted, and never the last one.
            encoding: "json", or "avro" with the registered schemas of the events. The feed stops at
                an event that has none.

        Raises:
            DefinitionError: the feed has this sink already.
        """
        self._add(
            StreamOptions(
                stream=stream,
                partitions=partitions,
                max_age=max_age,
                max_bytes=max_bytes,
                segment_bytes=segment_bytes,
                encoding=encoding,
            )
        )

    def to_webhook(self, url: str, *, secret: str) -> None:
        """
        Send each event to a URL, signed as Standard Webhooks says; needs `saga-engine[webhooks]`.

        Args:
            url: https://, at most 2,048 characters; not in a private network, unless
                SAGA_ENGINE_WEBHOOK_PRIVATE_NETWORKS allows it. Redirects are not followed.
            secret: the name of the environment variable with the secret: `whsec_` and 24 to 64
                bytes in base64. It may have several, with spaces between them: each signs.

        Raises:
            DefinitionError: the feed has this sink already.
        """
        self._add(WebhookOptions(url, secret))

    def to_kafka(  # noqa: PLR0913 - one keyword for each property of a topic
        self,
        topic: str,
        *,
        partitions: int,
        replication: int = 3,
        retention: timedelta | None = timedelta(days=7),
        compression: Compression | str = Compression.SNAPPY,
        max_message_bytes: int = 1_048_576,
        encoding: Encoding | str = Encoding.JSON,
    ) -> None:
        """
        Publish to a topic of Kafka, with the stream as the key; needs `saga-engine[kafka]`.

        A topic that is missing is created as declared. One that exists is compared and not changed:
        `feeds show` has the differences, and another number of partitions stops the feed.

        Args:
            topic: letters, digits, `.`, `-` and `_`; at most 249 characters.
            partitions: 1 to 10,000. All events of a stream are in one of them. A change later needs
                another topic.
            replication: on how many servers each event is, 1 to 100; at most as many as there are.
            retention: how long Kafka keeps events, from 1 second; None: forever.
            compression: "none", "gzip", "snappy", "lz4" or "zstd".
            max_message_bytes: 1,024 to 134,217,728, before compression, with headers. The feed
                stops at an event that is larger.
            encoding: "json", or "avro" with the registered schemas of the events. The feed stops at
                an event that has none.

        Raises:
            DefinitionError: the feed has this sink already.
        """
        self._add(
            KafkaOptions(
                topic=topic,
                partitions=partitions,
                replication=replication,
                retention=retention,
                compression=compression,
                max_message_bytes=max_message_bytes,
                encoding=encoding,
            )
        )

    def _add(self, options: SinkOptions) -> None:
        sink = options.sink
        if sink in self.sinks:
            raise DefinitionError(
                f"Feed {self.name!r} has the sink {sink.value!r} twice.",
                location=self.source_location,
                fix=f"Call to_{sink.value} once.",
            )
        self.sinks[sink] = options
