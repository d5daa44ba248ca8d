"""
Shares queues out among processes: each gets its share of them, without knowing the others.

Every process consumes every shared queue twice at most. As a standby it gets messages only while no
owner takes them; as an owner, with a higher priority, it gets all of them up to its prefetch
(RabbitMQ guide "Consumer Priorities"). So when an owner is gone or is full, the standbys get the
messages at once.

Which queues have an owner follows from the numbers of their consumers: each process is one
standby, and what is beyond that are owners. A process claims queues without an owner up to its
share, and releases what exceeds its share and, by chance, what another one owns too. Who gets a
message affects throughput only.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil
from random import Random

from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, ChannelNotFoundEntity

from saga_engine.amqp import driver
from saga_engine.amqp.connection import RPC_TIMEOUT, SupervisedConnection
from saga_engine.amqp.consumer_watchdog import count_messages_and_consumers
from saga_engine.amqp.delivery_channel import DeliveryChannel

OWNER_PRIORITY = 1
"""A standby has none, which counts as 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedQueues:
    """
    The queues that processes share out.

    Args:
        names: the queues, which each process also consumes as a standby.
        owner_prefetch: the most unacknowledged deliveries of a queue to its owner, beside those
            that it gets as a standby.
        counted_queue: a queue that each process consumes once; its consumers are counted.
    """

    names: tuple[str, ...]
    owner_prefetch: int
    counted_queue: str


@dataclass(frozen=True, slots=True)
class ShareChange:
    """The queues that a process claims and releases."""

    claimed: tuple[str, ...] = ()
    released: tuple[str, ...] = ()


def plan_change(
    other_owners: Mapping[str, int], owned: Collection[str], process_count: int, random: Random
) -> ShareChange:
    """
    Decide what a process claims and releases.

    Args:
        other_owners: how many other processes own each queue.
        owned: the queues that this process owns.
        process_count: how many processes there are, this one included.
        random: decides which queues, so that processes that decide at once decide differently.
    """
    share = ceil(len(other_owners) / process_count)
    kept = [each for each in owned if not other_owners[each] or random.random() < 0.5]
    random.shuffle(kept)
    kept = kept[:share]
    free = [each for each, count in other_owners.items() if not count and each not in owned]
    random.shuffle(free)
    return ShareChange(
        claimed=tuple(free[: share - len(kept)]),
        released=tuple(each for each in owned if each not in kept),
    )


def plan_from_counts(
    consumers: Mapping[str, int], owned: Collection[str], process_count: int, random: Random
) -> ShareChange:
    """Decide as `plan_change`, from how many consumers each queue has."""
    other_owners = {
        name: count - process_count - (name in owned) for name, count in consumers.items()
    }
    if min(process_count, 1 + min(other_owners.values())) <= 0:
        # A leader that does not respond in time reports no consumers; a process that starts or
        # stops consumes some of the queues.
        return ShareChange()
    return plan_change(other_owners, owned, process_count, random)


class QueueSharing:
    """The part of one process in sharing out queues."""

    def __init__(self, connection: SupervisedConnection, shared: SharedQueues) -> None:
        self._supervised = connection
        self._shared = shared
        self._random = Random()  # noqa: S311 - no secret depends on it
        self._owner_tags: dict[str, str] = {}

    @property
    def owned(self) -> frozenset[str]:
        """The queues that this process owns."""
        return frozenset(self._owner_tags)

    def reset(self) -> None:
        """Own nothing: the channel of the owners is closed."""
        self._owner_tags.clear()

    async def adjust(self, channel: DeliveryChannel) -> None:
        """
        Claim and release queues on the channel that also consumes them as a standby.

        Raises:
            BrokerUnavailable: the broker does not respond.
        """
        try:
            change = await self._plan_change()
        except (ChannelNotFoundEntity, ChannelAccessRefused, ChannelLockedResource):
            return  # the watchdog finds a queue that is gone; without a count nothing is claimed
        with driver.translate_errors("Queues could not be shared out"):
            for name in change.released:
                await channel.cancel_consumer(self._owner_tags.pop(name), RPC_TIMEOUT)
            for name in change.claimed:
                self._owner_tags[name] = await channel.consume_queue(
                    name,
                    RPC_TIMEOUT,
                    prefetch=self._shared.owner_prefetch,
                    priority=OWNER_PRIORITY,
                )

    async def _plan_change(self) -> ShareChange:
        process_count = await self._count_consumers(self._shared.counted_queue)
        consumers = {name: await self._count_consumers(name) for name in self._shared.names}
        return plan_from_counts(consumers, self.owned, process_count, self._random)

    async def _count_consumers(self, queue: str) -> int:
        connection = await self._supervised.wait_connected()
        _, consumers = await count_messages_and_consumers(connection, queue)
        return consumers
