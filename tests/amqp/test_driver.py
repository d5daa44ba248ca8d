"""Errors of aiormq become errors of saga-engine, and its log lines are kept from programs."""

import asyncio
import sys

import aiormq
import pytest
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity, ChannelPreconditionFailed

from saga_engine.amqp import driver
from saga_engine.errors import BrokerUnavailable, ConfigurationError
from tests.kit.command_line import REPOSITORY, environment
from tests.kit.connections import open_connection
from tests.kit.misbehaving_participant import turn_of_the_loop
from tests.kit.proxy import running_proxy

PROGRAM = """
import asyncio
from saga_engine import Client
from saga_engine.embedded.broker import DevelopmentBroker
from saga_engine.settings import Settings

async def reconnected(connection, generation):
    while connection.status.generation <= generation:
        await asyncio.sleep(0.02)

async def main():
    async with DevelopmentBroker() as broker:
        settings = Settings(broker_reconnect_backoff=0.05)
        async with Client(broker.url, settings=settings) as client:
            for _ in range(3):
                connections = client._connections.publish, client._answer_queue._connection
                generations = [each.status.generation for each in connections]
                broker.connections.abort_all()
                for connection, generation in zip(connections, generations):
                    await reconnected(connection, generation)

SET_UP
asyncio.run(main())
print("done")
"""


LEAVING = """
import asyncio
from saga_engine import Client
from saga_engine.embedded.broker import DevelopmentBroker
from saga_engine.settings import Settings

async def main():
    async with DevelopmentBroker() as broker:
        for turns in range(0, 240, 6):
            settings = Settings(broker_reconnect_backoff=0.001)
            async with Client(broker.url, settings=settings) as client:
                connection = client._answer_queue._connection
                generation = connection.status.generation
                broker.connections.abort_all()
                while connection.status.generation == generation:
                    await asyncio.sleep(0)
                for _ in range(turns):
                    await asyncio.sleep(0)

SET_UP
asyncio.run(main())
print("done")
"""
"""Leaves a client at each moment of its consuming again."""


async def ran(set_up, program=PROGRAM):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program.replace("SET_UP", set_up)),
        env=environment(),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    assert out == b"done\n", err
    return err.decode()


async def test_a_lost_connection_prints_nothing_where_no_log_is_configured():
    assert await ran("") == ""


async def test_a_configured_log_gets_the_librarys_messages():
    assert "reader exited" in await ran("import logging; logging.basicConfig()")


async def test_a_client_that_is_left_while_it_connects_again_prints_nothing():
    assert await ran("", LEAVING) == ""


async def test_a_cancellation_by_the_driver_is_a_lost_connection():
    lost = pytest.raises(BrokerUnavailable, match="It could not be sent: the connection was lost")
    with lost, driver.translate_errors("It could not be sent"):
        raise asyncio.CancelledError


async def test_a_cancellation_of_the_caller_stays_one():
    async def call() -> None:
        with driver.translate_errors("It could not be sent"):
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(call())
    await turn_of_the_loop()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (TimeoutError(), driver.BrokerTimeout, "the broker did not respond in time"),
        (ConnectionResetError("reset"), BrokerUnavailable, "reset"),
        (RuntimeError("Writer is None"), BrokerUnavailable, "Writer is None"),
        (AMQPError(), BrokerUnavailable, "the connection was lost"),
        (ChannelNotFoundEntity("no queue"), BrokerUnavailable, "no queue"),
    ],
)
async def test_an_error_of_the_driver_is_an_unavailable_broker(raised, expected, text):
    unavailable = pytest.raises(BrokerUnavailable, match=f"It could not be sent: .*{text}")
    with unavailable as found, driver.translate_errors("It could not be sent"):
        raise raised
    assert type(found.value) is expected
    assert found.value.__cause__ is raised


async def test_a_bug_is_raised_as_it_is():
    with pytest.raises(KeyError), driver.translate_errors("It could not be sent"):
        raise KeyError


async def test_a_refused_declaration_is_raised_as_it_is_on_request():
    action = "It could not be declared"
    refused = pytest.raises(ChannelPreconditionFailed)
    with refused, driver.translate_errors(action, allow_refusals=True):
        raise ChannelPreconditionFailed("inequivalent arg")


@pytest.mark.parametrize("hook", ["READER_CLOSE_TIMEOUT", "is_connection_was_stuck"])
def test_a_driver_without_its_hooks_is_refused(monkeypatch, hook):
    driver.check_aiormq_hooks()
    monkeypatch.delattr(aiormq.Connection, hook)
    with pytest.raises(ConfigurationError, match="does not support this version of aiormq"):
        driver.check_aiormq_hooks()


def test_a_driver_without_a_choice_of_sockets_is_refused(monkeypatch):
    class Connection(aiormq.Connection):
        def __init__(self, url):
            super().__init__(url)

    monkeypatch.setattr(aiormq, "Connection", Connection)
    with pytest.raises(ConfigurationError, match="hook for what arrives"):
        driver.check_aiormq_hooks()


async def test_a_channel_closes_in_time_and_reports_it_once(broker_url):
    reasons: list[str] = []
    async with open_connection(broker_url) as supervised:
        connection = await supervised.wait_connected()
        channel = await driver.open_channel(connection, Channel, 30)
        driver.on_closed(channel, reasons.append)
        assert await driver.close(channel, 30)
        assert await driver.close(channel, 30), "it is closed already"
    assert len(reasons) == 1


async def test_a_channel_that_does_not_close_in_time_is_reported(broker_url):
    async with running_proxy(broker_url) as proxy, open_connection(proxy.url) as supervised:
        connection = await supervised.wait_connected()
        channel = await driver.open_channel(connection, Channel, 30)
        proxy.drop_open_connections()
        assert not await driver.close(channel, 0.1)
        supervised.drop_connection(connection, "it does not answer")


async def test_a_cancellation_that_the_driver_loses_is_raised():
    async def lose_it(then) -> None:
        with driver.translate_errors("It failed"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                then()  # as asyncio.wait_for does before Python 3.12

    def fail() -> None:
        raise AMQPError("it was closed")

    for then in (lambda: None, fail):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(lose_it(then))
            await turn_of_the_loop()
            task.cancel()
        assert task.cancelled()


async def test_a_call_after_a_cancellation_succeeds():
    async def clean_up() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with driver.translate_errors("It failed"):
                await turn_of_the_loop()
        return "closed"

    async with asyncio.TaskGroup() as group:
        task = group.create_task(clean_up())
        await turn_of_the_loop()
        task.cancel()
    assert task.result() == "closed"
