"""Opens the sinks of feeds. Sinks of one kind share a connection."""

from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.publisher import Publisher
from saga_engine.engine_process import connection_events, connection_problem
from saga_engine.errors import ConfigurationError
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.feeds import feed_table
from saga_engine.events.feeds.confirmed_offsets import ConfirmedOffsets
from saga_engine.events.feeds.event_encoder import AvroEncoder, EventEncoder, JsonEncoder
from saga_engine.events.feeds.exchange_sink import ExchangeSink
from saga_engine.events.feeds.feed import (
    Encoding,
    ExchangeOptions,
    Feed,
    KafkaOptions,
    Sink,
    SinkOptions,
    StreamOptions,
    WebhookOptions,
)
from saga_engine.events.feeds.feed_rules import event_filter
from saga_engine.events.feeds.feed_sink import FeedSink
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.feeds.owned_feed import OwnedFeed
from saga_engine.events.feeds.producer_name import ProducerName
from saga_engine.events.readers.owned_loop import Owned
from saga_engine.protocol.topology import FEED_TOPOLOGY
from saga_engine.schemas.avro_codec import require_fastavro
from saga_engine.schemas.known_schemas import WrittenSchemas
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import Observer
from saga_engine.vocabulary import ConnectionRole


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedProcess:
    """
    What the sinks of a process share.

    Args:
        owner: names the process.
        database: of the events and the feeds.
        log: the identity of the log.
        settings: where the sinks are, and their limits.
        emit: takes telemetry events.
    """

    owner: str
    database: Database
    log: EventLog
    settings: Settings
    emit: Observer


def require_servers(feeds: Iterable[Feed], settings: Settings) -> None:
    """Raise the ConfigurationError of a setting that is missing and says where a sink is."""
    kinds = {sink for feed in feeds for sink in feed.sinks}
    if kinds & {Sink.EXCHANGE, Sink.STREAM}:
        settings.require_broker_url()
    if Sink.KAFKA in kinds:
        settings.require_kafka_bootstrap_servers()


class SinkOpener:
    """
    Opens the sinks of feeds.

    Args:
        resources: closes what was opened.
        process: what the sinks share.
    """

    def __init__(self, resources: AsyncExitStack, process: FeedProcess) -> None:
        self._resources = resources
        self._process = process
        self._database = process.database
        self._log = process.log
        self._settings = process.settings
        self._emit = process.emit
        self.duties: list[Owned] = []
        self._connection: SupervisedConnection | None = None
        self._json = JsonEncoder()
        self._avro = AvroEncoder(WrittenSchemas(process.database, process.settings))

    async def open_all(self, feeds: Iterable[Feed]) -> dict[FeedKey, FeedSink]:
        """
        Open every sink of feeds; what they have to do beside publishing is then in `duties`.

        Raises:
            BrokerError: RabbitMQ is out of reach, or the exchange cannot be declared.
            ConfigurationError: a setting or a secret is missing or wrong, or an extra is missing.
        """
        return {
            key: await self._open(feed, key, feed.sinks[key.sink])
            for feed in feeds
            for key in FeedKey.of(feed)
        }

    async def _open(self, feed: Feed, key: FeedKey, options: SinkOptions) -> FeedSink:
        match options:
            case ExchangeOptions():
                return await self._open_exchange(key, options)
            case StreamOptions():
                return await self._open_stream(ProducerName.of(feed, key, self._log.id), options)
            case KafkaOptions():
                return await self._open_kafka(key, options)
            case WebhookOptions():
                return await self._open_webhook(feed, key, options)

    def _encoder(self, encoding: Encoding | str) -> EventEncoder:
        if encoding == Encoding.JSON:
            return self._json
        require_fastavro()
        return self._avro

    async def _open_stream(self, name: ProducerName, options: StreamOptions) -> FeedSink:
        try:
            from saga_engine.events.feeds.stream_sink import StreamSink  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigurationError(
                f"Feed {name.key.name!r} publishes to a stream, which needs the packages rstream"
                " and mmh3. Install saga-engine[streams]."
            ) from None
        encoder = self._encoder(options.encoding)
        sink = StreamSink(options, encoder, name, self._database, self._settings)
        return await self._resources.enter_async_context(sink)

    async def _open_kafka(self, key: FeedKey, options: KafkaOptions) -> FeedSink:
        try:
            from saga_engine.events.feeds.kafka_sink import KafkaSink  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigurationError(
                f"Feed {key.name!r} publishes to Kafka, which needs the package confluent-kafka."
                " Install saga-engine[kafka]."
            ) from None
        encoder = self._encoder(options.encoding)

        async def read_confirmed() -> ConfirmedOffsets:
            async with self._database.transaction() as tx:
                return await feed_table.read_confirmed(tx, key)

        sink = KafkaSink(
            key, options, encoder, self._log, self._settings, read_confirmed=read_confirmed
        )
        return await self._resources.enter_async_context(sink)

    async def _open_webhook(self, feed: Feed, key: FeedKey, options: WebhookOptions) -> FeedSink:
        try:
            from saga_engine.events.feeds.webhook_sink import WebhookSink  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigurationError(
                f"Feed {key.name!r} has a webhook, which needs the package httpx. Install"
                " saga-engine[webhooks]."
            ) from None
        process = self._process
        owned = OwnedFeed(
            key=key,
            owner=process.owner,
            log=process.log,
            selected=event_filter(feed),
            database=process.database,
        )
        sink = WebhookSink(owned, options, self._settings, self._emit)
        self.duties.append(sink.backlog)
        return await self._resources.enter_async_context(sink)

    async def _open_exchange(self, key: FeedKey, options: ExchangeOptions) -> ExchangeSink:
        if self._connection is None:
            connection = SupervisedConnection(
                self._settings.require_broker_url(),
                role=ConnectionRole.PUBLISH,
                settings=self._settings,
                topology=FEED_TOPOLOGY,
                on_status=connection_events(self._emit),
            )
            self._connection = await self._resources.enter_async_context(connection)
        connection = self._connection
        return ExchangeSink(
            key,
            options,
            self._log,
            Publisher(connection),
            lambda: connection_problem(connection.status),
            self._emit,
        )
