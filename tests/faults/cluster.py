"""Three nodes of RabbitMQ on one machine, and what is done to one of them or to two."""

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
TRIES, PATIENCE, ANSWERS = 3, 45.0, 10.0  # Seconds for all to be one, and for one to answer.
RUNNING = "length(rabbit_nodes:all_running())."


class RabbitCluster:
    """Looks like a RabbitServer to the site; its URL names all nodes, `ctl` asks one that lives."""

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
        place = urlsplit(first).netloc
        return first.replace(place, ",".join([place, *hosts]))

    async def ctl(self, *arguments):
        return await self._living().rabbitmqctl(*arguments)

    async def leader(self, vhost, queue):
        """The node that leads a quorum queue."""
        # Not list_queues, which asks every node and waits for one that is stopped.
        name = (await self.ctl("eval", LEADER.format(vhost, queue))).strip().strip("'")
        return next(node for node in self.nodes if node.node_name == name)

    def kill(self, node):
        node.kill()
        self._down.add(node)

    def pause(self, node):
        os.kill(node.pid, signal.SIGSTOP)
        self._stopped.add(node)

    def resume(self, node):
        os.kill(node.pid, signal.SIGCONT)
        self._stopped.discard(node)

    async def partition(self, node):
        """Neither it nor the others accept a connection from each other any more."""
        for other in self.nodes:
            if other is not node:
                await node.ctl("eval", DISCONNECT_NODE.format(other.node_name))

    async def heal_partition(self, node):
        for other in self.nodes:
            if other is not node:
                await node.ctl("eval", RECONNECT_NODE.format(other.node_name))

    async def wait_until_whole(self):
        """
        Start what is down, and wait until all nodes run and know each other.

        One that was taken for dead may wait for the others for ever: it is started anew.
        """
        for _ in range(TRIES):
            async with asyncio.TaskGroup() as group:
                for node in self._down:
                    group.create_task(node.restart())
            self._down.clear()
            with suppress(TimeoutError):
                await wait_until_true(self._is_whole, patience=PATIENCE)
                return
            for node in [each for each in self.nodes if not await _sees_all_nodes(each)]:
                self.kill(node)
        raise TimeoutError(f"the cluster was not whole after {TRIES} tries")

    async def _is_whole(self):
        return all([await _sees_all_nodes(node) for node in self.nodes])

    def _living(self):
        away = self._down | self._stopped
        return next(node for node in self.nodes if node not in away)


async def _sees_all_nodes(node):
    try:
        async with asyncio.timeout(ANSWERS):
            return (await node.ctl("eval", RUNNING)).strip() == "3"
    except (BrokerError, TimeoutError):
        return False
