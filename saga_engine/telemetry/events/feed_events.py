"""Telemetry events about feeds: which process runs them, and events they cannot publish."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from saga_engine.telemetry.events.event_failure import EventFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedsRegistered:
    """This process can run these feeds, each with its sink."""

    feeds: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedAcquired:
    """This process has become the owner of a feed, and continues after `position`."""

    feed: str
    sink: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEventsPassed:
    """
    A feed has saved its position after events, or that of a stream that a webhook let wait.

    Args:
        feed: its name.
        sink: where its events go.
        published: how many of them the sink has confirmed; without those that a stream waits for.
        skipped: for how many no queue was bound.
    """

    feed: str
    sink: str
    published: int
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedWaits:
    """The sink of a feed takes no events. The feed waits, and goes on when the problem is gone."""

    feed: str
    sink: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSinkDiffers:
    """The sink of a feed is not as the feed declares it, each difference a sentence. It goes on."""

    feed: str
    sink: str
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStopped(EventFailure):
    """
    An event cannot be published, so the feed waits for an operator to retry or discard it.

    A process that starts reports it again for a feed that is stopped.
    """

    feed: str
    sink: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEventDeadLettered:
    """A webhook has refused an event for too long, so its stream waits for an operator."""

    feed: str
    sink: str
    position: int
    stream: str
    event_type: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedsMeasured:
    """
    How far the feeds are that this process declares.

    Every projector measures the same database, so aggregate the metrics with max, never with sum.

    Args:
        lag_events: of each feed and sink, in positions.
        lag_s: of each feed and sink, the age of its next event.
        states: of each feed and sink.
        waiting_for_sink: those that this process cannot publish because the sink is unavailable or
            refuses events.
        waiting_streams: how many streams of a feed wait for an event that a webhook has refused; a
            feed without one is left out.
    """

    lag_events: Mapping[tuple[str, str], int] = field(default_factory=dict)
    lag_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    states: Mapping[tuple[str, str], str] = field(default_factory=dict)
    waiting_for_sink: tuple[tuple[str, str], ...] = ()
    waiting_streams: Mapping[tuple[str, str], int] = field(default_factory=dict)
