import asyncio
from contextlib import AsyncExitStack
from functools import partial
from itertools import pairwise
from urllib.parse import urlsplit

import pytest
from aiormq.channel import Channel

from saga_engine.amqp import driver
from saga_engine.amqp.connection import ConnectionStatus, SupervisedConnection
from saga_engine.errors import BrokerUnavailable
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole, ConnectionState
from tests.kit.connections import FAST_RECONNECT, StateRecorder, open_connection, wait_until
from tests.kit.misbehaving_participant import turn_of_the_loop
from tests.kit.programs import sleep
from tests.kit.proxy import running_proxy

LONG_ON_RABBITMQ = pytest.mark.parametrize(
    "broker_url",
    ["development", pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.long])],
    indirect=True,
)


def has_generation(generation: int, state: ConnectionStatus) -> bool:
    return state.generation == generation


async def test_lost_connection_is_reopened_each_time(broker_url):
    observer = StateRecorder()
    async with (
        running_proxy(broker_url) as proxy,
        open_connection(proxy.url, observer=observer) as supervised,
    ):
        for generation in (2, 3, 4):
            proxy.reset()
            await observer.wait_for(partial(has_generation, generation))
            assert not (await supervised.wait_connected()).is_closed
    states = [state.state for state in observer.states]
    assert states[0] is ConnectionState.CONNECTED
    assert states[-1] is ConnectionState.CLOSED
    assert states.count(ConnectionState.CONNECTED) == 4


@LONG_ON_RABBITMQ
async def test_a_cancellation_while_a_connection_opens_is_never_lost(broker_url):
    async def use() -> None:
        async with open_connection(broker_url):
            await asyncio.Event().wait()

    for turns in range(0, 600, 6):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(use())
            for _ in range(turns):
                await turn_of_the_loop()
            task.cancel()
        assert task.cancelled(), f"cancelled after {turns} turns of the event loop"


async def test_dropped_connection_is_replaced(broker_url):
    observer = StateRecorder()
    async with open_connection(broker_url, observer=observer) as supervised:
        first = await supervised.wait_connected()
        supervised.drop_connection(first, "it does not answer")
        await observer.wait_for(lambda state: state.generation == 2)
        second = await supervised.wait_connected()
        assert second is not first
        supervised.drop_connection(first, "it does not answer either")
        assert await supervised.wait_connected() is second
    assert any("does not answer" in state.problem for state in observer.states)


async def test_connection_waits_for_the_broker_on_request(broker_url):
    observer = StateRecorder()
    async with running_proxy(broker_url) as proxy:
        proxy.pause_server_data()
        settings = Settings(**FAST_RECONNECT | {"broker_connect_timeout": 0.2})
        supervised = SupervisedConnection(
            proxy.url,
            role=ConnectionRole.CONSUME,
            settings=settings,
            on_status=observer,
            wait_for_broker=True,
        )
        async with asyncio.TaskGroup() as tasks:
            entering = tasks.create_task(supervised.__aenter__())
            await observer.wait_for(lambda state: "in time" in state.problem)
            proxy.resume()
            await entering
            assert supervised.status.state is ConnectionState.CONNECTED
            await supervised.__aexit__(None, None, None)


def test_reconnect_delay_doubles_to_a_limit_with_jitter():
    settings = Settings(broker_reconnect_backoff=0.2, broker_reconnect_backoff_max=5.0)
    supervised = SupervisedConnection("amqp://h", role=ConnectionRole.CONSUME, settings=settings)
    for failures in (0, 1, 2, 3, 10, 1000):
        full = min(5.0, 0.2 * 2.0 ** min(failures, 30))
        pauses = {supervised.backoff_delay(failures) for _ in range(50)}
        assert all(full / 2 <= pause <= full for pause in pauses)
        assert len(pauses) > 1


def with_hosts(url, *hosts):
    """The URL with its host replaced by those hosts."""
    return url.replace(host_of(url), ",".join(hosts))


def host_of(url):
    return urlsplit(url).netloc.rpartition("@")[2]


async def test_connections_find_the_available_host(broker_url, unused_port):
    nowhere = f"127.0.0.1:{unused_port}"
    url = with_hosts(broker_url, nowhere, host_of(broker_url), nowhere)
    began = set()
    for _ in range(20):
        observer = StateRecorder()
        async with open_connection(url, observer=observer):
            began.add(len(observer.states))
    assert began == {1, 2, 3}


async def test_every_host_is_tried_before_the_broker_is_unavailable(unused_port):
    observer = StateRecorder()
    with pytest.raises(BrokerUnavailable, match="out of reach"):
        async with open_connection(
            f"amqp://u:p@127.0.0.1:{unused_port},[::1]:{unused_port},localhost:{unused_port}/",
            observer=observer,
        ):
            pass
    assert len(observer.states) == 2  # the third failure is raised


async def test_lost_connection_is_reopened_at_another_host(broker_url):
    observer = StateRecorder()
    async with running_proxy(broker_url) as one, running_proxy(broker_url) as two:
        url = with_hosts(broker_url, host_of(one.url), host_of(two.url))
        async with open_connection(url, observer=observer):
            first, other = (one, two) if one.open_connections else (two, one)
            await first.refuse()
            await observer.wait_for(lambda state: state.generation == 2)
            assert other.open_connections == 1
            first_again, other = other, first
            await other.accept()
            first_again.reset()
            await observer.wait_for(lambda state: state.generation == 3)
            assert other.open_connections == 1


async def test_events_of_a_dropped_connection_are_ignored(broker_url):
    async with open_connection(broker_url) as supervised:
        dropped = await supervised.wait_connected()
        supervised.drop_connection(await supervised.wait_connected(), "it does not answer")
        current = await supervised.wait_connected()
        dropped.on_blocked("low on memory")
        await supervised.wait_publishable()
        before = supervised.status.state
        assert before is ConnectionState.CONNECTED
        current.on_blocked("low on memory")
        dropped.on_unblocked()
        assert supervised.status.state is ConnectionState.BLOCKED
        current.on_unblocked()
        await supervised.wait_publishable()


@LONG_ON_RABBITMQ
async def test_stale_connection_is_dropped_after_a_declaration(broker_url):
    """Otherwise every call on it would time out until the heartbeats are missed."""
    observer = StateRecorder()
    async with (
        running_proxy(broker_url) as proxy,
        open_connection(proxy.url, observer=observer) as supervised,
    ):
        connection = await supervised.wait_connected()
        proxy.drop_open_connections()
        with pytest.raises(BrokerUnavailable):
            await supervised.redeclare_topology(connection)
        await observer.wait_for(partial(has_generation, 2))
        await supervised.redeclare_topology(await supervised.wait_connected())


async def test_dropping_a_connection_skips_the_close_handshake(broker_url):
    async with running_proxy(broker_url) as proxy, open_connection(proxy.url) as supervised:
        connection = await supervised.wait_connected()
        proxy.drop_open_connections()

        async def fail_to_open():
            with pytest.raises(BrokerUnavailable):
                await driver.open_channel(connection, Channel, 30)

        # The driver would wait two seconds for the close handshake.
        async with asyncio.timeout(1.5), asyncio.TaskGroup() as tasks:
            tasks.create_task(fail_to_open())
            await sleep(0.1)  # by then the request is sent
            supervised.drop_connection(connection, "it does not answer")


CONNECTIONS = 20


AWAY_S = 3.0


class ReconnectRecorder:
    """The order of retries and of reconnects, and how often a connection failed."""

    def __init__(self):
        self.tried, self.up = [], []
        self.vain = 0
        self.back = asyncio.Event()

    def look(self, number, state):
        if state.state is ConnectionState.CONNECTED and state.generation == 2:
            self.up.append(number)
        if len(self.up) == CONNECTIONS:
            self.back.set()
        if state.state is ConnectionState.CONNECTING and state.generation == 1:
            self.vain += 1
            self.tried += [number] if number not in self.tried else []


@LONG_ON_RABBITMQ
async def test_connections_lost_together_reconnect_spread_over_time(broker_url):
    """The connections do not reconnect in the order in which they retried."""
    recorder, ours = (
        ReconnectRecorder(),
        {"broker_reconnect_backoff": 0.2, "broker_reconnect_backoff_max": 5.0},
    )  # the default values
    async with running_proxy(broker_url) as proxy, AsyncExitStack() as owned:
        for number in range(CONNECTIONS):
            look = partial(recorder.look, number)
            await owned.enter_async_context(open_connection(proxy.url, observer=look, **ours))
        await proxy.refuse()
        await sleep(AWAY_S)
        assert recorder.vain < 10 * CONNECTIONS, "they hardly pause"
        await wait_until(lambda: recorder.vain > 4 * CONNECTIONS)
        await proxy.accept()
        async with asyncio.timeout(60):
            await recorder.back.wait()
    assert len(recorder.tried) == CONNECTIONS
    together = set(pairwise(recorder.tried)) & set(pairwise(recorder.up))
    assert len(together) <= CONNECTIONS / 2, (
        f"{len(together)} pairs of {CONNECTIONS} connections kept together"
    )
