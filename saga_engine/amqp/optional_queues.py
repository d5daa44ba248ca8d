"""
Finds queues that are consumed if they exist: those that another setting of another process made.

AMQP can only ask for one queue, and RabbitMQ logs an error for one that does not exist. So they are
looked for in the order of their names, up to the first that does not exist, and again when the
number of consumers shows that a process has come or gone.
"""

from collections.abc import Sequence

from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, ChannelNotFoundEntity

from saga_engine.amqp import driver
from saga_engine.amqp.connection import RPC_TIMEOUT, SupervisedConnection

CHECKS_BETWEEN_SEARCHES = 100
"""Checks of the watchdog after which queues are looked for although no consumer came or went."""


class OptionalQueues:
    """The queues of *names* that exist."""

    def __init__(self, connection: SupervisedConnection, names: Sequence[str]) -> None:
        self._supervised = connection
        self._names = tuple(names)
        self._checks = 0
        self.found: tuple[str, ...] = ()

    def should_search(self, *, consumers_changed: bool) -> bool:
        """Whether to look for queues now; called once in each check of the watchdog."""
        self._checks += 1
        return consumers_changed or self._checks % CHECKS_BETWEEN_SEARCHES == 0

    def forget(self) -> None:
        """Forget what was found: a queue may be gone."""
        self.found = ()

    async def search(self) -> list[str]:
        """
        Look for queues that were not found before, and return them.

        A queue that this user may not read is reported, and left to the other processes.

        Raises:
            BrokerUnavailable: the broker does not respond.
        """
        new = []
        for name in self._names:
            if name in self.found:
                continue
            connection = await self._supervised.wait_connected()
            channel = await driver.open_channel(connection, Channel, RPC_TIMEOUT)
            if not await _exists(channel, name) or not await self._may_read(channel, name):
                break
            await driver.close(channel, RPC_TIMEOUT)
            new.append(name)
        self.found += tuple(new)
        return new

    async def _may_read(self, channel: Channel, name: str) -> bool:
        try:
            with driver.translate_errors("The broker does not respond", allow_refusals=True):
                # The message that may come with it is returned when the channel is closed.
                await channel.basic_get(name, no_ack=False, timeout=RPC_TIMEOUT)
        except (ChannelAccessRefused, ChannelLockedResource) as error:
            self._supervised.report_problem(f"Queue {name!r} may not be consumed: {error}.")
            return False
        return True


async def _exists(channel: Channel, name: str) -> bool:
    """Whether a queue exists; RabbitMQ 4 does not say it to a user without any right to it."""
    try:
        with driver.translate_errors("The broker does not respond", allow_refusals=True):
            await channel.queue_declare(name, passive=True, timeout=RPC_TIMEOUT)
    except (ChannelNotFoundEntity, ChannelAccessRefused):
        return False
    return True
