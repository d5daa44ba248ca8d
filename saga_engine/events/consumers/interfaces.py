"""
Where a consumer receives its events, as its loop uses it.

    Source            a queue, a stream or a topic: its partitions
    Subscription      one partition that this process consumes
    StartPoint        where it begins
    IncomingMessage   a message as it arrived
    SourceLag         what waits in a partition

`queue_source` is that of RabbitMQ's queues.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from saga_engine.vocabulary import Json

CONTENT_TYPE = "datacontenttype"
"""The attribute of CloudEvents that is the content type of the body in every binding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingMessage:
    """
    A message as it arrived. Its sender controls every field: none can be trusted.

    Args:
        attributes: of CloudEvents, by their names without a prefix, and the content type as
            `datacontenttype`; they can be stored in PostgreSQL.
        body: the whole one, or of a long one in a queue the beginning, see `body_size`.
        body_size: the length of the whole body in bytes.
        content_encoding: empty for a body that is not compressed.
        problem: why its attributes cannot be read; empty when they can.
        offset: its place in the partition; None in a source without offsets.
        count: how many offsets it has: a batch of messages that cannot be read has several.
        delivery: what the source acknowledges it with.
    """

    attributes: Mapping[str, Json]
    body: bytes = field(repr=False)
    body_size: int
    content_encoding: str = ""
    problem: str = ""
    offset: int | None = None
    count: int = 1
    delivery: Any = None


@dataclass(frozen=True, slots=True)
class StartPoint:
    """
    Where a partition is consumed on.

    Args:
        offset: the first one to consume; None: the first that is there, or the source has no
            offsets.
        last_message: the fingerprint of the message before it, which was consumed; None: it is not
            known. See `changed_source`.
    """

    offset: int | None
    last_message: UUID | None = None


@dataclass(frozen=True, slots=True)
class SourceLag:
    """
    What waits in a partition from an offset on.

    Args:
        messages: how many, at most: markers of transactions count.
        seconds: the age of the first of them, by the clock of the broker or of the publisher; 0 if
            none waits, None if it is not known.
    """

    messages: int
    seconds: float | None


class Subscription(Protocol):
    """One partition that this process consumes, in the order in which it was published."""

    async def take(self, limit: int, seconds: float) -> Sequence[IncomingMessage]:
        """
        Return what has arrived, up to *limit*; wait for it, at most *seconds*.

        Raises:
            BrokerError: the source is unavailable; subscribe again.
        """

    async def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        """Note that messages were processed, after the commit. Others may be delivered again."""


class Source(Protocol):
    """A queue, a stream or a topic that is open."""

    @property
    def description(self) -> str:
        """What it is, as it is stored: `queue saga.consumer.billing`."""

    async def partition_count(self) -> int:
        """
        Return how many partitions there are.

        Raises:
            BrokerError: the source is unavailable, or missing.
        """

    async def measure(self, partition: int, offset: int | None, /) -> SourceLag | None:
        """
        Measure what waits in a partition.

        Args:
            partition: from 0.
            offset: the first one to consume; None: all that is there.

        Returns:
            None: it is not known, because the source is unavailable.
        """

    def subscribe(
        self, partition: int, start: StartPoint, /
    ) -> AbstractAsyncContextManager[Subscription]:
        """
        Consume a partition while the block runs.

        Args:
            partition: from 0.
            start: where to begin.

        Raises:
            BrokerError: the source is unavailable, missing, another one than the one that was
                consumed, or no longer has the offset.
        """
