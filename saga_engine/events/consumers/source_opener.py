"""Opens the sources of consumers. Sources of one kind share a connection."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.engine_process import connection_events, connection_problem
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.consumers.interfaces import Source
from saga_engine.events.consumers.queue_source import QueueSource, queue_topology
from saga_engine.events.consumers.source_options import QueueOptions
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
            ConfigurationError: there is no broker URL for a queue.
            BrokerError: a broker is out of reach, or a queue cannot be declared.
        """
        self._connection = await self._connect(_topology(consumers))
        return {each.name: self._source(each) for each in consumers}

    def _source(self, consumer: Consumer) -> Source:
        match consumer.source:
            case QueueOptions() as options:
                assert self._connection is not None, "it is open"
                return QueueSource(consumer, options, self._connection, self._settings)

    async def _connect(self, topology: Topology) -> SupervisedConnection:
        connection = SupervisedConnection(
            self._settings.require_broker_url(),
            role=ConnectionRole.CONSUME,
            settings=self._settings,
            topology=topology,
            on_status=connection_events(self._emit),
        )
        return await self._resources.enter_async_context(connection)


def _topology(consumers: Sequence[Consumer]) -> Topology:
    """What the queues of all of them need on the broker."""
    parts = [queue_topology(each, each.source) for each in consumers]
    return Topology(
        exchanges=tuple(dict.fromkeys(each for part in parts for each in part.exchanges)),
        queues=tuple(dict.fromkeys(each for part in parts for each in part.queues)),
        bindings=tuple(dict.fromkeys(each for part in parts for each in part.bindings)),
    )
