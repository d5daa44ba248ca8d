"""
What worker and participant use of a publisher and a consumer, as protocols.

`publisher.Publisher` and `consumer.Consumer` implement them on RabbitMQ. The simulation implements
them on a model of it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from saga_engine.amqp.batch_budget import BatchBudget
from saga_engine.protocol.message import Delivery, Message, PublishOutcome


class MessagePublisher(Protocol):
    """Publishes messages in batches; see `publisher.Publisher`."""

    @property
    def blocked(self) -> bool:
        """Whether the broker accepts no publishes now, or is unreachable."""

    async def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish a batch; return one outcome for each message, in their order."""


class MessageConsumer(Protocol):
    """Consumes messages in batches; see `consumer.Consumer`."""

    @property
    def generation(self) -> int:
        """How often consuming has started; a delivery of an earlier one is delivered again."""

    @property
    def buffered_count(self) -> int:
        """How many deliveries have arrived and are not taken yet."""

    async def take(
        self, limit: int, budget: BatchBudget = ..., *, only_urgent: Callable[[], bool] = ...
    ) -> list[Delivery]:
        """Wait for at least one delivery, and return up to `limit`; none only after `stop`."""

    def wake(self) -> None:
        """Have `take` evaluate `only_urgent` again."""

    async def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Acknowledge deliveries; those of an earlier generation are left out."""

    async def reject(self, deliveries: Iterable[Delivery]) -> None:
        """Have the broker dead-letter deliveries."""

    async def stop(self) -> None:
        """Stop consuming; deliveries that were taken can still be acknowledged."""
