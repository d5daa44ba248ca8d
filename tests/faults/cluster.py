"""A cluster of three RabbitMQ nodes on one machine, and faults of its nodes."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress
from urllib.parse import urlsplit

from saga_engine.errors import BrokerError
from tests.kit.programs import wait_until_true
from tests.kit.rabbitmq import RabbitMQServer

FIRST, *OTHERS = ("one", "two", "three")
DISCONNECT_NODE = "erlang:set_cookie('{0}', strange), erlang:disconnect_node('{0}')."
RECONNECT_NODE = "erlang:set_cookie('{0}', erlang:get_cookie()), net_kernel:connect_node('{0}')."
LEADER = (
    '{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{}">>, queue, <<"{}">>)),'
    " {{_, Node}} = amqqueue:get_pid(Queue), Node."
)
MAX_ATTEMPTS = 3
JOIN_TIMEOUT_S, ANSWER_TIMEOUT_S = 45.0, 10.0
RUNNING = "length(rabbit_nodes:all_running())."


class RabbitCluster:
    """Has the interface of RabbitMQServer; its URL names all nodes."""

    def __init__(self):
        self.nodes: list[RabbitMQServer] = []
        self._owned = AsyncExitStack()
        self._down: set[RabbitMQServer] = set()
        self._stopped: set[RabbitMQServer] = set()

    async def __aenter__(self):
        async with AsyncExitStack() as owned:
            first = await owned.enter_async_context(RabbitMQServer(name=FIRST))
            others = [RabbitMQServer(name=name, cluster_peer=first) for name in OTHERS]
            for each in others:
                await owned.enter_async_context(each)
                await each.join_cluster()
            self.nodes = [first, *others]
            self._owned = owned.pop_all()
        return self

    async def __aexit__(self, *_):
        for node in self._stopped:
            os.kill(node.pid, signal.SIGKILL)
        await self._owned.aclose()

    def url_of(self, vhost):
        """One URL with every node."""
        first, *others = [node.url_of(vhost) for node in self.nodes]
        hosts = [urlsplit(each).netloc.rpartition("@")[2] for each in others]
        first_host = urlsplit(first).netloc
        return first.replace(first_host, ",".join([first_host, *hosts]))

    async def rabbitmqctl(self, *arguments):
        return await self._live_node().rabbitmqctl(*arguments)

    async def leader(self, vhost, queue):
        """The node that leads a quorum queue."""
        # list_queues asks every node, and would wait for a stopped one.
        name = (await self.rabbitmqctl("eval", LEADER.format(vhost, queue))).strip().strip("'")
        return next(node for node in self.nodes if node.node_name == name)

    def kill(self, node: RabbitMQServer):
        node.kill()
        self._down.add(node)

    def pause(self, node: RabbitMQServer):
        os.kill(node.pid, signal.SIGSTOP)
        self._stopped.add(node)

    def resume(self, node: RabbitMQServer):
        os.kill(node.pid, signal.SIGCONT)
        self._stopped.discard(node)

    async def partition(self, node: RabbitMQServer):
        """Cut the node off: neither it nor the others accept connections from each other."""
        for other in self.nodes:
            if other is not node:
                await node.rabbitmqctl("eval", DISCONNECT_NODE.format(other.node_name))

    async def heal_partition(self, node: RabbitMQServer):
        for other in self.nodes:
            if other is not node:
                await node.rabbitmqctl("eval", RECONNECT_NODE.format(other.node_name))

    async def wait_until_whole(self):
        """
        Start stopped nodes, and wait until all nodes run and see each other.

        A node that the others removed may wait for them without end: it is restarted.
        """
        for _ in range(MAX_ATTEMPTS):
            async with asyncio.TaskGroup() as group:
                for node in self._down:
                    group.create_task(node.restart())
            self._down.clear()
            with suppress(TimeoutError):
                await wait_until_true(self._is_whole, patience=JOIN_TIMEOUT_S)
                return
            for node in [each for each in self.nodes if not await _sees_all_nodes(each)]:
                self.kill(node)
        raise TimeoutError(f"the cluster was not whole after {MAX_ATTEMPTS} tries")

    async def _is_whole(self):
        return all([await _sees_all_nodes(node) for node in self.nodes])

    def _live_node(self):
        unavailable = self._down | self._stopped
        return next(node for node in self.nodes if node not in unavailable)


async def _sees_all_nodes(node: RabbitMQServer):
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return (await node.rabbitmqctl("eval", RUNNING)).strip() == "3"
    except (BrokerError, TimeoutError):
        return False
