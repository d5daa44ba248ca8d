"""
The events of aggregates, and the channels of the feeds that publish them.

An event is described in its newest version, which new events are written with. A feed may also
publish older ones: their `schemaversion` attribute is lower.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from saga_engine.asyncapi.channels import add_message, channel_reference, message_of
from saga_engine.asyncapi.components import Components, Document
from saga_engine.asyncapi.feed_channels import (
    PublishedEvent,
    SinkDescription,
    is_in_avro,
    of_sink,
    sink_channel,
)
from saga_engine.events.aggregates.aggregate import Aggregate
from saga_engine.events.event_store.append import RUN_PREFIX
from saga_engine.events.event_store.event_types import EventType, event_type_of
from saga_engine.events.feeds.event_encoder import JSON_CONTENT_TYPE
from saga_engine.events.feeds.feed import Feed, Sink
from saga_engine.events.feeds.feed_rules import event_filter
from saga_engine.schemas.avro_codec import AVRO_CONTENT_TYPE
from saga_engine.schemas.avro_schema import avro_type
from saga_engine.store.event_data import EVENT_TYPES

AVRO_FORMAT = "application/vnd.apache.avro+json;version=1.9.0"
"""As AsyncAPI names the language of an Avro schema."""

CATEGORY_END = "-"
RUN_CATEGORY = RUN_PREFIX.removesuffix(CATEGORY_END)


class EventMessages:
    """
    Describes events and feeds; each method adds to *document*.

    Args:
        document: with `channels` and `operations`.
        components: of the document.
        aggregates: whose events the feeds may publish.
    """

    def __init__(
        self, document: Document, components: Components, aggregates: Sequence[Aggregate]
    ) -> None:
        self._channels = document["channels"]
        self._operations = document["operations"]
        self._components = components
        self._events = [*declared_events(aggregates)]

    def add_events(self) -> None:
        """Describe every event of the aggregates, also those that no feed publishes."""
        for each in self._events:
            self._message(each, of_sink(Sink.EXCHANGE))

    def add_feed(self, feed: Feed) -> None:
        """Describe the channel of each sink of a feed, and that the feed sends to it."""
        events = [*published_events(feed, self._events)]
        for options in feed.sinks.values():
            description = of_sink(options.sink)
            is_avro = is_in_avro(options)
            messages = [self._message(each, description, is_avro=is_avro) for each in events]
            channel = sink_channel(options, events)
            for message in messages:
                add_message(channel, message)
            name = f"feed.{feed.name}{description.suffix}"
            self._channels[name] = channel
            self._operations[name] = {
                "action": "send",
                "title": f"Feed {feed.name} to its {options.sink.value}",
                "channel": channel_reference(name),
                "messages": [message_of(name, each) for each in messages],
                "bindings": description.operation_bindings,
            }

    def _message(
        self, event: PublishedEvent, sink: SinkDescription, *, is_avro: bool = False
    ) -> Document:
        version = f".v{event.version}" if event.version else ""
        payload: Document = self._components.payload(event.schema)
        if is_avro and event.schema:
            payload = {"schemaFormat": AVRO_FORMAT, "schema": _avro_schema(event)}
        return self._components.add_message(
            event.name + version + sink.suffix + (".avro" if is_avro else ""),
            {
                "name": event.name,
                "title": f"{event.name}, version {event.version}" if event.version else event.name,
                "contentType": AVRO_CONTENT_TYPE if is_avro else JSON_CONTENT_TYPE,
                "headers": self._components.add_schema(f"event-headers{sink.suffix}", sink.headers),
                "payload": payload,
                "bindings": sink.message_bindings,
            },
        )


def _avro_schema(event: PublishedEvent) -> Any:
    return avro_type(event.name, event.schema).schema


def declared_events(aggregates: Iterable[Aggregate]) -> Iterator[PublishedEvent]:
    """Give the events of aggregates."""
    for aggregate in aggregates:
        for fold in aggregate.folds.values():
            yield _declared(aggregate.name, fold.event_type)


def published_events(feed: Feed, declared: Sequence[PublishedEvent]) -> Iterator[PublishedEvent]:
    """
    Give the events that a feed selects, as far as declarations say which there are.

    Args:
        feed: a valid one.
        declared: the events of all aggregates.
    """
    log_filter = event_filter(feed)
    names = None if log_filter.types is None else set(log_filter.types)
    found: set[str] = set()
    for each in declared:
        if (names is None or each.name in names) and _selects(feed, str(each.category)):
            found.add(each.name)
            yield each
    if feed.streams is not None and log_filter.reads_runs:
        for name in sorted(EVENT_TYPES.keys() & (names or EVENT_TYPES.keys())):
            found.add(name)
            yield PublishedEvent(category=RUN_CATEGORY, name=name, version=None, schema={})
    yield from _named_events(feed, found)


def _named_events(feed: Feed, found: set[str]) -> Iterator[PublishedEvent]:
    """Give the events that a feed names and no aggregate of these modules declares."""
    for given in feed.types or ():
        event_type = event_type_of(given)
        if event_type is not None and event_type.name not in found:
            yield _declared(None, event_type)
        elif isinstance(given, str) and given not in found:
            yield PublishedEvent(category=None, name=given, version=None, schema={})


def _declared(category: str | None, event_type: EventType) -> PublishedEvent:
    return PublishedEvent(
        category=category,
        name=event_type.name,
        version=event_type.version,
        schema=event_type.payload_type.schema("serialization"),
    )


def _selects(feed: Feed, category: str) -> bool:
    """Whether a feed can select a stream of a category."""
    start = category + CATEGORY_END
    return feed.streams is None or any(
        each.startswith(start) or (each.endswith("*") and start.startswith(each[:-1]))
        for each in feed.streams
    )
