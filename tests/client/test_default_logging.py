"""What a program that has not configured logging sees of a connection that is lost."""

import asyncio
import sys

from tests.kit.command_line import REPOSITORY, environment

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
