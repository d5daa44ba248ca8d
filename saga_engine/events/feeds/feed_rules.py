"""What makes feeds valid. `check` is called before they are used."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from saga_engine.errors import DefinitionError, InvalidInput
from saga_engine.events.event_store.event_types import EventType, event_type_of, schema_of_event
from saga_engine.events.event_store.log_page import LogFilter
from saga_engine.events.feeds.feed import (
    Compression,
    Encoding,
    ExchangeOptions,
    Feed,
    KafkaOptions,
    StreamOptions,
    Unroutable,
    WebhookOptions,
)
from saga_engine.events.feeds.webhook_target import InvalidTarget, WebhookTarget
from saga_engine.events.readers.stored_name import STORED_NAME_RULE, is_stored_name
from saga_engine.payload.payload import type_name
from saga_engine.schemas.avro_schema import avro_type

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")

Problems = Iterator[DefinitionError]

_STREAM = re.compile(r"[a-zA-Z0-9._-]{1,200}")
_MIN_AGE, _MAX_AGE = timedelta(seconds=1), timedelta(days=36_525)
_MAX_BYTES = 1_000_000_000_000_000
_PARTITIONS = (1, 200)
_SEGMENT_BYTES = (1_000, 3_000_000_000)

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_TOPIC_PARTITIONS, _REPLICATION = (1, 10_000), (1, 100)
_MAX_MESSAGE_BYTES = (1_024, 134_217_728)


def check(feeds: Iterable[Feed]) -> None:
    """
    Check feeds against every rule.

    Raises:
        DefinitionError: the first rule they break.
    """
    for problem in problems(feeds):
        raise problem


def problems(feeds: Iterable[Feed]) -> Problems:
    """Every rule that feeds break, each alone and all together."""
    names: dict[str, Feed] = {}
    for feed in feeds:
        if not is_stored_name(feed.name):
            yield _problem(feed, "has an invalid name", STORED_NAME_RULE)
        other = names.setdefault(feed.name, feed)
        if other is not feed:
            yield _problem(feed, f"is also declared at {other.source_location}", "Rename one.")
        yield from _check_sinks(feed)
        yield from _check_selection(feed)


def event_filter(feed: Feed) -> LogFilter:
    """
    Make the filter of a feed.

    Raises:
        DefinitionError: a type is not an event.
        InvalidInput: a pattern of streams cannot be read.
    """
    if feed.types is None or isinstance(feed.types, str):
        return LogFilter.create(feed.types, feed.streams)
    return LogFilter.create([_type_name(feed, each) for each in feed.types], feed.streams)


def event_types_of_feed(feed: Feed) -> list[EventType]:
    """Return the declared events that a feed selects by their classes."""
    classes = feed.types if feed.types and not isinstance(feed.types, str) else ()
    return [found for each in classes if (found := event_type_of(each))]


def _check_sinks(feed: Feed) -> Problems:
    if not feed.sinks:
        fix = "Call its to_exchange(), to_stream(), to_kafka() or to_webhook()."
        yield _problem(feed, "publishes nowhere", fix)
    for options in feed.sinks.values():
        match options:
            case ExchangeOptions():
                yield from _check_exchange(feed, options)
            case StreamOptions():
                yield from _check_stream(feed, options)
            case KafkaOptions():
                yield from _check_kafka(feed, options)
            case WebhookOptions():
                yield from _check_webhook(feed, options)


def _check_exchange(feed: Feed, options: ExchangeOptions) -> Problems:
    if options.unroutable not in tuple(Unroutable):
        allowed = " or ".join(repr(each.value) for each in Unroutable)
        yield _problem(feed, f"has unroutable={options.unroutable!r}", f"Use {allowed}.")


def _check_stream(feed: Feed, options: StreamOptions) -> Problems:
    name: Any = options.stream
    if not isinstance(name, str) or not _STREAM.fullmatch(name):
        yield _problem(
            feed,
            f"has the stream {str(name)[:80]!r}",
            "Use letters, digits, `.`, `-` and `_`; at most 200 characters.",
        )
    yield from _check_encoding(feed, options.encoding)
    yield from _check_number(feed, "partitions", options.partitions, _PARTITIONS)
    yield from _check_number(feed, "segment_bytes", options.segment_bytes, _SEGMENT_BYTES)
    if options.max_bytes is not None and isinstance(options.segment_bytes, int):
        bounds = (options.segment_bytes, _MAX_BYTES)
        yield from _check_number(feed, "max_bytes", options.max_bytes, bounds)
    if options.max_age is not None and not _is_age(options.max_age):
        yield _problem(
            feed,
            f"has max_age={str(options.max_age)[:40]}",
            "Give a timedelta of whole seconds, from 1 second to 100 years, as"
            " max_age=timedelta(days=7), or None to keep events without end.",
        )


def _check_kafka(feed: Feed, options: KafkaOptions) -> Problems:
    topic: Any = options.topic
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        yield _problem(
            feed,
            f"has the topic {str(topic)[:80]!r}",
            "Use letters, digits, `.`, `-` and `_`; at most 249 characters.",
        )
    yield from _check_encoding(feed, options.encoding)
    yield from _check_number(feed, "partitions", options.partitions, _TOPIC_PARTITIONS)
    yield from _check_number(feed, "replication", options.replication, _REPLICATION)
    size = options.max_message_bytes
    yield from _check_number(feed, "max_message_bytes", size, _MAX_MESSAGE_BYTES)
    if options.compression not in tuple(Compression):
        allowed = ", ".join(repr(each.value) for each in Compression)
        yield _problem(feed, f"has compression={options.compression!r}", f"Use one of {allowed}.")
    retention = options.retention
    if retention is not None and not _is_age(retention):
        yield _problem(
            feed,
            f"has retention={str(retention)[:40]}",
            "Give a timedelta of whole seconds, from 1 second to 100 years, as"
            " retention=timedelta(days=7), or None to keep events forever.",
        )


def _check_encoding(feed: Feed, encoding: Encoding | str) -> Problems:
    if encoding not in tuple(Encoding):
        allowed = " or ".join(repr(each.value) for each in Encoding)
        yield _problem(feed, f"has encoding={encoding!r:.40}", f"Use {allowed}.")
    if encoding != Encoding.AVRO:
        return
    with suppress(InvalidInput, DefinitionError):  # see _check_selection
        if event_filter(feed).reads_runs:
            yield _problem(
                feed,
                "publishes events of runs in Avro, which have no schema",
                'Select others, as streams=["order-*"] or types=[OrderPlaced], and publish runs in'
                " JSON by a feed of its own.",
            )
    for event_type in event_types_of_feed(feed):
        try:
            avro_type(event_type.name, schema_of_event(event_type)[0].writes)
        except InvalidInput as error:
            yield _problem(feed, f"cannot publish an event in Avro: {error}", "Or use JSON.")


def _check_number(feed: Feed, argument: str, given: Any, bounds: tuple[int, int]) -> Problems:
    least, most = bounds
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= most:
        fix = f"Give a number from {least:,} to {most:,}."
        yield _problem(feed, f"has {argument}={str(given)[:40]}", fix)


def _is_age(given: object) -> bool:
    return isinstance(given, timedelta) and _MIN_AGE <= given <= _MAX_AGE and not given.microseconds


def _check_webhook(feed: Feed, options: WebhookOptions) -> Problems:
    try:
        WebhookTarget.parse(options.url)
    except InvalidTarget as error:
        problem, _, fix = str(error).partition(". ")
        yield _problem(feed, problem, f"{fix}.")
    name: object = options.secret
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        yield _problem(
            feed,
            "has a secret that is not the name of an environment variable",
            'Put the secret into the environment, and name its variable: "ORDERS_WEBHOOK_SECRET".',
        )


def _check_selection(feed: Feed) -> Problems:
    for given, name in ((feed.streams, "streams"), (feed.types, "types")):
        if given is not None and not given:
            yield _problem(
                feed, f"selects nothing: {name} is empty", f"Leave {name} out to select all."
            )
    try:
        event_filter(feed)
    except InvalidInput as error:
        yield DefinitionError(
            f"Feed {str(feed.name)[:80]!r} cannot select its events.",
            location=feed.source_location,
            fix=str(error),
        )
    except DefinitionError as error:
        yield error


def _type_name(feed: Feed, given: str | type) -> str:
    if isinstance(given, str):
        return given
    event_type = event_type_of(given)
    if event_type is None:
        raise _problem(
            feed,
            f"selects {type_name(given)}, which is not an event",
            "Declare it with the event decorator of its aggregate, in a module that is imported"
            " before this one, or give the name of the event.",
        )
    return event_type.name


def _problem(feed: Feed, problem: str, fix: str) -> DefinitionError:
    text = f"Feed {str(feed.name)[:80]!r} {problem}."
    return DefinitionError(text, location=feed.source_location, fix=fix)
