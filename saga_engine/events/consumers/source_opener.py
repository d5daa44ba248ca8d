"""Opens the sources of consumers. Sources of one kind share a connection."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.engine_process import connection_events, connection_problem
from saga_engine.errors import ConfigurationError
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.consumers.interfaces import Source
from saga_engine.events.consumers.queue_source import QueueSource, queue_topology
from saga_engine.events.consumers.source_options import (
    KafkaSourceOptions,
    QueueSourceOptions,
    StreamSourceOptions,
)
from saga_engine.protocol.topology import Topology
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Observer
from saga_engine.vocabulary import ConnectionRole


class SourceOpener:
    """
    Opens the sources of consumers.

    Args:
        resources: closes what was opened.
        settings: where the sources are, and their limits.
        emit: takes telemetry events.
    """

    def __init__(self, resources: AsyncExitStack, settings: Settings, emit: Observer) -> None:
        self._resources = resources
        self._settings = settings
        self._emit = emit
        self._connection: SupervisedConnection | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong with the connection to the broker; None: nothing."""
        return connection_problem(self._connection.status) if self._connection else None

    async def open_all(self, consumers: Sequence[Consumer]) -> dict[str, Source]:
        """
        Open the source of each consumer, by its name.

        Raises:
            ConfigurationError: there is no broker URL, or a library is missing.
            BrokerError: a broker is out of reach, or a queue cannot be declared.
        """
        queues = [
            queue_topology(each, each.source)
            for each in consumers
            if isinstance(each.source, QueueSourceOptions)
        ]
        if queues:
            self._connection = await self._connect(_combined(queues))
        return {each.name: self._source(each) for each in consumers}

    def _source(self, consumer: Consumer) -> Source:
        match consumer.source:
            case QueueSourceOptions() as options:
                assert self._connection is not None, "it is open"
                return QueueSource(consumer, options, self._connection, self._settings)
            case StreamSourceOptions() as options:
                return self._open_stream(consumer, options)
            case KafkaSourceOptions() as options:
                return self._open_kafka(consumer, options)

    def _open_stream(self, consumer: Consumer, options: StreamSourceOptions) -> Source:
        try:
            from saga_engine.events.consumers.stream_source import (  # noqa: PLC0415 - an extra
                StreamSource,
            )
        except ImportError:
            raise ConfigurationError(
                f"Consumer {consumer.name!r} reads a stream, which needs the packages rstream and"
                " mmh3. Install saga-engine[streams]."
            ) from None
        source = StreamSource(consumer.name, options, self._settings)
        self._resources.push_async_callback(source.close)
        return source

    def _open_kafka(self, consumer: Consumer, options: KafkaSourceOptions) -> Source:
        try:
            from saga_engine.events.consumers.kafka_source import (  # noqa: PLC0415 - an extra
                KafkaSource,
            )
        except ImportError:
            raise ConfigurationError(
                f"Consumer {consumer.name!r} reads Kafka, which needs the package confluent-kafka."
                " Install saga-engine[kafka]."
            ) from None
        source = KafkaSource(consumer.name, options, self._settings)
        self._resources.push_async_callback(source.close)
        return source

    async def _connect(self, topology: Topology) -> SupervisedConnection:
        connection = SupervisedConnection(
            self._settings.require_broker_url(),
            role=ConnectionRole.CONSUME,
            settings=self._settings,
            topology=topology,
            on_status=connection_events(self._emit),
        )
        return await self._resources.enter_async_context(connection)


def _combined(parts: Sequence[Topology]) -> Topology:
    """What the queues of all of them need on the broker."""
    return Topology(
        exchanges=tuple(dict.fromkeys(each for part in parts for each in part.exchanges)),
        queues=tuple(dict.fromkeys(each for part in parts for each in part.queues)),
        bindings=tuple(dict.fromkeys(each for part in parts for each in part.bindings)),
    )
