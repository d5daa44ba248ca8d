"""Telemetry events about feeds: which process runs them, and events they cannot publish."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedAcquired:
    """This process has become the owner of a feed, and continues after `position`."""

    feed: str
    sink: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStopped:
    """An event cannot be published, so the feed waits for an operator to retry or discard it."""

    feed: str
    sink: str
    position: int
    stream: str
    event_type: str
    problem: str
