"""What makes consumers valid. `check` is called before they are used."""

from collections.abc import Iterable, Iterator

from saga_engine.errors import DefinitionError
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.consumers.source_options import (
    KafkaSourceOptions,
    QueueSourceOptions,
    StreamSourceOptions,
)
from saga_engine.events.event_store.event_types import missing_upcasters
from saga_engine.events.handlers.on_poison import OnPoison
from saga_engine.events.readers.stored_name import STORED_NAME_RULE, is_stored_name
from saga_engine.payload.payload import type_name

MAX_QUEUE_NAME_BYTES = 255
"""The longest name of a queue, and the longest routing key, in AMQP."""

Problems = Iterator[DefinitionError]


def check(consumers: Iterable[Consumer]) -> None:
    """
    Check consumers against every rule.

    Raises:
        DefinitionError: the first rule they break.
    """
    for problem in problems(consumers):
        raise problem


def problems(consumers: Iterable[Consumer]) -> Problems:
    """Every rule that consumers break, each alone and all together."""
    names: dict[str, Consumer] = {}
    for consumer in consumers:
        yield from _check_header(consumer)
        yield from _check_source(consumer)
        if not consumer.handlers and not consumer.has_invalid_declarations:
            yield _problem(consumer, "handles no event", "Declare functions with @....on(Event).")
        event_types = [each.event_type for each in consumer.handlers.values() if each.event_type]
        yield from missing_upcasters(event_types)
        other = names.setdefault(consumer.name, consumer)
        if other is not consumer:
            yield _problem(consumer, f"is also declared at {other.source_location}", "Rename one.")


def _check_header(consumer: Consumer) -> Problems:
    if not is_stored_name(consumer.name):
        yield _problem(consumer, "has an invalid name", STORED_NAME_RULE)
    if consumer.on_poison not in tuple(OnPoison):
        allowed = " or ".join(repr(each.value) for each in OnPoison)
        yield _problem(consumer, f"has on_poison={consumer.on_poison!r}", f"Use {allowed}.")


def _check_source(consumer: Consumer) -> Problems:
    source: object = consumer.source
    match source:
        case QueueSourceOptions():
            yield from _check_queue(consumer, source)
        case StreamSourceOptions():
            if not _fits(source.stream):
                problem = f"reads a stream named {source.stream!r:.80}"
                yield _problem(consumer, problem, "Give a text of at most 255 bytes.")
        case KafkaSourceOptions():
            if not _fits(source.topic):
                problem = f"reads a topic named {source.topic!r:.80}"
                yield _problem(consumer, problem, "Give a text of at most 255 bytes.")
        case _:
            problem = f"has a {type_name(type(source))} as its source"
            yield _problem(consumer, problem, "Give source=from_queue(), or another one.")


def _check_queue(consumer: Consumer, source: QueueSourceOptions) -> Problems:
    if source.name is not None and not _fits(source.name):
        yield _problem(
            consumer, f"has a queue named {source.name!r:.80}", "Give a text of at most 255 bytes."
        )
    if source.keys is None:
        return
    if isinstance(source.keys, str) or not all(map(_fits, source.keys)):
        yield _problem(
            consumer, f"has keys={source.keys!r:.80}", 'Give a list of texts: keys=["order.#"].'
        )
    elif not source.keys:
        yield _problem(
            consumer,
            "binds its queue to nothing: keys is empty",
            "Leave keys out to receive the events that it has functions for.",
        )


def _fits(given: object) -> bool:
    """Whether it can be the name of a queue, or a routing key."""
    return isinstance(given, str) and 0 < len(given.encode()) <= MAX_QUEUE_NAME_BYTES


def _problem(consumer: Consumer, problem: str, fix: str) -> DefinitionError:
    text = f"Consumer {str(consumer.name)[:80]!r} {problem}."
    return DefinitionError(text, location=consumer.source_location, fix=fix)
