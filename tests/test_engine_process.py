"""The two connections of a process to the broker, and its shutdown within a timeout."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from saga_engine.amqp.connection import ConnectionStatus
from saga_engine.engine_process import (
    BrokerConnections,
    EngineProcess,
    Readiness,
    connection_events,
    open_broker_connections,
)
from saga_engine.errors import ConfigurationError
from saga_engine.protocol.topology import Topology
from saga_engine.settings import Settings
from saga_engine.telemetry.events import BrokerConnectionChanged, ProcessStopping
from saga_engine.vocabulary import ConnectionRole, ConnectionState, Program
from tests.kit.events import EventRecorder

NOTHING = Topology()


class ExampleProcess(EngineProcess):
    """A process whose work ends when its stop event is set, unless it `hangs`."""

    def __init__(self, broker_url: str, events: EventRecorder, *, hangs: bool = False) -> None:
        super().__init__(
            Program.WORKER, Settings(broker_url=broker_url, shutdown_timeout=0.2), events
        )
        self.timed_out = False
        self._hangs = hangs
        self._stop = asyncio.Event()

    async def _open(self, resources: AsyncExitStack) -> None:
        self.connections: BrokerConnections = await self._connect(resources, NOTHING)

    async def _stop_work(self) -> None:
        if not self._hangs:
            self._stop.set()

    def _on_work_timeout(self, _: object) -> None:
        self.timed_out = True

    def readiness(self) -> Readiness:
        return self._process_readiness()

    async def shut_down(self, *, immediately: bool = False) -> tuple[bool, bool]:
        """Whether its work finished before the deadline, and whether it was cancelled."""
        work = asyncio.get_running_loop().create_task(self._work())
        finished = await self._shut_down(work, immediately=immediately)
        await asyncio.wait([work])
        return finished, work.cancelled()

    async def _work(self) -> None:
        await self._stop.wait()


async def test_a_process_is_ready_while_both_connections_are(broker_url):
    events = EventRecorder()
    async with ExampleProcess(broker_url, events) as process:
        ready = {"publishing": None, "consuming": None, "shutting_down": None}
        assert process.readiness() == ready
        connected = events.matching(BrokerConnectionChanged)
        assert {each.connection for each in connected if each.state == "connected"} == {
            "publish",
            "consume",
        }
        connection = await process.connections.publish.wait_connected()
        process.connections.publish.drop_connection(connection, "It does not answer.")
        assert process.readiness()["publishing"]
        assert process.readiness()["consuming"] is None


async def test_work_that_ends_in_time_is_not_cancelled(broker_url):
    events = EventRecorder()
    async with ExampleProcess(broker_url, events) as process:
        assert await process.shut_down() == (True, False)
        assert process.readiness()["shutting_down"]
        assert not process.timed_out
    assert events.matching(ProcessStopping) == [ProcessStopping(program=Program.WORKER)]


async def test_work_that_does_not_end_in_time_is_cancelled(broker_url):
    async with ExampleProcess(broker_url, EventRecorder(), hangs=True) as process:
        assert await process.shut_down() == (False, True)
        assert process.timed_out


async def test_work_that_must_end_now_is_cancelled(broker_url):
    async with ExampleProcess(broker_url, EventRecorder(), hangs=True) as process:
        assert await process.shut_down(immediately=True) == (False, True)


async def test_a_broker_url_is_needed_from_settings_or_caller(broker_url):
    opened = open_broker_connections(
        Settings(), publish_topology=NOTHING, consume_topology=NOTHING, broker_url=broker_url
    )
    async with opened as connections:
        assert connections.publish.status.state is ConnectionState.CONNECTED
        assert connections.consume.status.state is ConnectionState.CONNECTED
    with pytest.raises(ConfigurationError, match="SAGA_ENGINE_BROKER_URL is not set"):
        async with open_broker_connections(
            Settings(), publish_topology=NOTHING, consume_topology=NOTHING
        ):
            pass


def test_each_change_of_a_connection_is_emitted():
    events = EventRecorder()
    connection_events(events)(
        ConnectionStatus(ConnectionRole.PUBLISH, ConnectionState.BLOCKED, 2, "It is blocked.")
    )
    assert events == [
        BrokerConnectionChanged(
            connection=ConnectionRole.PUBLISH,
            state=ConnectionState.BLOCKED,
            generation=2,
            problem="It is blocked.",
        )
    ]
