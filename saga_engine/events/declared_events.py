"""The events that a declaration of the author names: those that it writes or reads as a class."""

from collections.abc import Iterator

from saga_engine.events.aggregates.aggregate import Aggregate
from saga_engine.events.event_store.event_types import EventType
from saga_engine.events.feeds.feed import Feed
from saga_engine.events.feeds.feed_rules import event_types_of_feed
from saga_engine.events.projections.projection import Projection


def event_types_of_declaration(declared: object) -> Iterator[EventType]:
    """
    Return the events of an aggregate, a projection or a feed; none of anything else.

    A feed of whole streams names no class. Its events are those of the aggregates in its module.
    """
    if isinstance(declared, Aggregate):
        yield from (fold.event_type for fold in declared.folds.values())
    elif isinstance(declared, Projection):
        yield from declared.event_types
    elif isinstance(declared, Feed):
        yield from event_types_of_feed(declared)
