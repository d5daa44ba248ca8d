"""A feed as its sink needs it that keeps something of its own in the database."""

from dataclasses import dataclass

from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedFeed:
    """
    A feed in this process.

    Args:
        key: the feed and its sink.
        owner: this process.
        log: the identity of the log.
        selected: which events it publishes.
        database: of the events and the feed.
    """

    key: FeedKey
    owner: str
    log: EventLog
    selected: LogFilter
    database: Database
