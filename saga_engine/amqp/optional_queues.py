"""
Finds queues that are consumed if they exist: those that another setting of another process made.

AMQP can only ask for one queue, and RabbitMQ logs an error for one that does not exist. So they are
looked for in the order of their names, up to the first that does not exist, and again when the
number of consumers shows that a process has come or gone.

Whether a queue may be read is known when it is consumed. To get a message for that, and to return
it, would count against the delivery limit of the message.
"""

from collections.abc import Sequence

from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPChannelError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
)

from saga_engine.amqp import driver
from saga_engine.amqp.connection import RPC_TIMEOUT, SupervisedConnection
from saga_engine.amqp.delivery_channel import DeliveryChannel
from saga_engine.errors import BrokerUnavailable

CHECKS_BETWEEN_SEARCHES = 100
"""Checks of the watchdog after which queues are looked for although no consumer came or went."""


class QueueRefused(BrokerUnavailable):
    """A queue may not be consumed; the broker has closed the channel, and it is not found again."""


class OptionalQueues:
    """The queues of *names* that exist."""

    def __init__(self, connection: SupervisedConnection, names: Sequence[str]) -> None:
        self._supervised = connection
        self._names = tuple(names)
        self._checks = 0
        self._refusals: dict[str, str] = {}
        self.found: tuple[str, ...] = ()

    def should_search(self, *, consumers_changed: bool) -> bool:
        """Whether to look for queues now; called once in each check of the watchdog."""
        self._checks += 1
        return consumers_changed or self._checks % CHECKS_BETWEEN_SEARCHES == 0

    def forget(self) -> None:
        """Forget what was found: a queue may be gone. What was refused is not asked for again."""
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
            if name in self._refusals:
                self._supervised.report_problem(self._refusals[name])
                break
            connection = await self._supervised.wait_connected()
            channel = await driver.open_channel(connection, Channel, RPC_TIMEOUT)
            if not await _exists(channel, name):
                break
            if not await driver.close(channel, RPC_TIMEOUT):
                self._supervised.drop_connection(connection, "it does not respond")
                raise BrokerUnavailable("The broker does not respond.")
            new.append(name)
        self.found += tuple(new)
        return new

    async def consume(
        self, channel: DeliveryChannel, name: str, seconds: float, prefetch: int
    ) -> None:
        """
        Consume a queue that was found.

        Raises:
            QueueRefused: this user may not read it.
            BrokerUnavailable: it cannot be consumed now.
        """
        action = f"Queue {name!r} could not be consumed"
        try:
            with driver.translate_errors(action, allow_refusals=True):
                await channel.consume_queue(name, seconds, prefetch=prefetch)
        except (ChannelAccessRefused, ChannelLockedResource) as error:
            self._refusals[name] = f"Queue {name!r} may not be consumed: {error}."
            raise QueueRefused(self._refusals[name]) from error
        except AMQPChannelError as error:
            raise BrokerUnavailable(f"{action}: {error}.") from error


async def _exists(channel: Channel, name: str) -> bool:
    """Whether a queue exists; RabbitMQ 4 does not say it to a user without any right to it."""
    try:
        with driver.translate_errors("The broker does not respond", allow_refusals=True):
            await channel.queue_declare(name, passive=True, timeout=RPC_TIMEOUT)
    except (ChannelNotFoundEntity, ChannelAccessRefused):
        return False
    return True
