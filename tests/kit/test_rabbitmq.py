"""The private RabbitMQ node keeps the messages of quorum queues, and leaves no process."""

import asyncio
import shutil
import signal
import sys

import aio_pika
import pytest
from pamqp.common import FieldTable

from saga_engine.errors import BrokerError, ConfigurationError
from tests.kit import rabbitmq as module
from tests.kit.processes import is_alive, wait_for_exit
from tests.kit.rabbitmq import RabbitMQServer

QUORUM: FieldTable = {"x-queue-type": "quorum"}


@pytest.mark.rabbitmq
@pytest.mark.usefixtures("rabbitmq")
class TestNode:
    @pytest.mark.long
    async def test_confirmed_messages_survive_a_kill_and_a_restart(self):
        async with RabbitMQServer() as server:
            url, pid = server.url, server.pid
            connection = await aio_pika.connect(url)
            channel = await connection.channel()
            await channel.declare_queue("orders", durable=True, arguments=QUORUM)
            message = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, "orders", timeout=10)
            await server.sync_metadata()
            closed: asyncio.Queue = asyncio.Queue()
            connection.close_callbacks.add(lambda *_: closed.put_nowait(True))
            server.kill()
            await closed.get()
            await server.restart()
            assert server.url == url
            assert server.pid != pid
            async with await aio_pika.connect(url) as again:
                queue = await (await again.channel()).get_queue("orders")
                arrived: asyncio.Queue = asyncio.Queue()
                await queue.consume(arrived.put, no_ack=True)
                async with asyncio.timeout(30):
                    assert (await arrived.get()).body == b"kept"
            pid, directory = server.pid, server._directory
        assert not is_alive(pid)
        assert not directory.exists()

    async def test_rabbitmqctl_uses_this_node(self, rabbitmq):
        assert str(rabbitmq.pid) in await rabbitmq.rabbitmqctl("eval", "os:getpid().")

    async def test_a_failing_command_is_named(self, rabbitmq):
        with pytest.raises(BrokerError, match="rabbitmqctl nonsense failed"):
            await rabbitmq.rabbitmqctl("nonsense")

    @pytest.mark.long
    async def test_a_killed_parent_leaves_neither_node_nor_epmd(self):
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        node, epmd, directory = (await parent.stdout.readline()).decode().split()
        parent.send_signal(signal.SIGKILL)
        await parent.wait()
        await wait_for_exit(int(node))
        await wait_for_exit(int(epmd))
        shutil.rmtree(directory)


async def test_without_rabbitmq_the_error_names_the_command(monkeypatch):
    monkeypatch.setattr(module, "_find_scripts", lambda: None)
    assert not module.rabbitmq_installed()
    with pytest.raises(ConfigurationError, match="apt-get install rabbitmq-server"):
        await RabbitMQServer().__aenter__()


PARENT = """
import asyncio
from tests.kit.rabbitmq import RabbitMQServer

async def main():
    async with RabbitMQServer() as server:
        print(server.pid, server._epmd_process.pid, server._directory, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
