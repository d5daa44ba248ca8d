"""
What the author declares: a feed, which of the events it selects, and where it publishes them.

A feed publishes in the order of each stream, and an event at least once, always with the same id.
`docs/protocol.md`, section 14, is what a consumer relies on.
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from saga_engine.errors import DefinitionError


class Unroutable(StrEnum):
    """What happens to an event that no queue is bound for."""

    SKIP = "skip"  # it is counted, and published to no queue
    STOP = "stop"  # the feed stops at it, until an operator retries or discards it


class Sink(StrEnum):
    """Where the events of a feed go."""

    EXCHANGE = "exchange"  # the exchange `saga.feed`


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """A feed's events go to the exchange `saga.feed`."""

    sink: ClassVar[Sink] = Sink.EXCHANGE

    unroutable: Unroutable | str


SinkOptions = ExchangeOptions
"""What an author declares about one sink of a feed."""


class Feed:
    """
    A subscription to the events of a database, whose events are published.

        feed = Feed("orders", streams=["order-*"])
        feed.to_exchange()

    A new feed begins with the first event of the database.

    Args:
        name: lower case, digits, `-` and `_`; at most 64 characters. Its position is stored under
            this name.
        streams: only these streams, or `order-*` for all that begin with `order-`; the streams of
            runs are `run-*`. None: all.
        types: only events of these types, as the classes that aggregates declare or by their
            names; None: all.
    """

    def __init__(
        self,
        name: str,
        *,
        streams: Collection[str] | None = None,
        types: Collection[str | type] | None = None,
    ) -> None:
        frame = sys._getframe(1)  # noqa: SLF001 - the only way to the line a constructor is called on
        self.source_location = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.name = name
        self.streams = streams
        self.types = types
        self.sinks: dict[Sink, SinkOptions] = {}

    def __repr__(self) -> str:
        return f"Feed({self.name!r}, streams={self.streams!r}, types={self.types!r})"

    def to_exchange(self, *, unroutable: Unroutable | str = Unroutable.SKIP) -> None:
        """
        Publish to the exchange `saga.feed`, with routing key `<category>.<type>`.

        Args:
            unroutable: whether an event that no queue is bound for is skipped and counted, or stops
                the feed. Choose "stop" if a consumer must not miss events that are published before
                its queue is bound, or while its binding is missing.

        Raises:
            DefinitionError: the feed has this sink already.
        """
        self._add(ExchangeOptions(unroutable))

    def _add(self, options: SinkOptions) -> None:
        sink = options.sink
        if sink in self.sinks:
            raise DefinitionError(
                f"Feed {self.name!r} has the sink {sink.value!r} twice.",
                location=self.source_location,
                fix=f"Call to_{sink.value} once.",
            )
        self.sinks[sink] = options
