"""
Whether consumers can read the events of which schemas are registered.

A consumer is a reader: its models are compared with what others write, and are not registered.
`saga-engine schemas check` does it. A process of consumers does not: an event that it cannot read
stops it before that event, and loses nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saga_engine.errors import DefinitionError
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.event_store.event_schema import event_schemas
from saga_engine.events.event_store.event_types import EventType
from saga_engine.postgres.statement import Transaction
from saga_engine.schemas import registry
from saga_engine.schemas.comparison import compare
from saga_engine.schemas.compatibility import Compatibility
from saga_engine.schemas.judgement import judge
from saga_engine.schemas.stored_schema import StoredSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadEvent:
    """
    An event that a consumer reads with a model.

    Args:
        consumer: its name.
        event: the type of the event.
        schemas: how many schemas of it are registered.
        problems: what the consumer cannot read of them.
        location: `file:line` of the declaration.
    """

    consumer: str
    event: str
    schemas: int
    problems: tuple[DefinitionError, ...]
    location: str


async def check_readers(tx: Transaction, consumers: Sequence[Consumer]) -> list[ReadEvent]:
    """
    Compare the models of consumers with the registered schemas of their events.

    Functions that get JSON read everything, and are left out.

    Args:
        tx: of the registry.
        consumers: valid ones.
    """
    handlers = [
        (consumer.name, each.event_type)
        for consumer in consumers
        for each in consumer.handlers.values()
        if each.event_type is not None
    ]
    stored = await registry.read(tx, {each.name for _, each in handlers})
    return [
        _read_event(consumer, event_type, [s for s in stored if s.subject == event_type.name])
        for consumer, event_type in handlers
    ]


def _read_event(consumer: str, event_type: EventType, schemas: Sequence[StoredSchema]) -> ReadEvent:
    find = _model_problems if event_type.reads_any_version else _class_problems
    return ReadEvent(
        consumer=consumer,
        event=event_type.name,
        schemas=len(schemas),
        problems=tuple(
            DefinitionError(
                f"Consumer {consumer!r}: {problem}.", location=event_type.source_location, fix=fix
            )
            for problem, fix in find(event_type, schemas)
        ),
        location=event_type.source_location,
    )


def _model_problems(
    event_type: EventType, schemas: Sequence[StoredSchema]
) -> Iterator[tuple[str, str]]:
    """What the model of a consumer cannot read, which reads the data of every version."""
    (declared,) = event_schemas([event_type])
    for each in schemas:
        writer = f"version {each.schema.version} (schema {each.id})"
        for found in compare(each.schema.writes, declared.schema.reads):
            detail = found.sentence(writer, f"{event_type.model.__name__} of the consumer")
            yield (
                f"cannot read {event_type.name} {writer}: {detail}",
                "Give it a default, or accept what is written.",
            )


def _class_problems(
    event_type: EventType, schemas: Sequence[StoredSchema]
) -> Iterator[tuple[str, str]]:
    """What the class that an aggregate declares cannot read, also with its upcasters."""
    (declared,) = event_schemas([event_type])
    for each in judge(declared, schemas, Compatibility.BACKWARD_TRANSITIVE):
        yield each.problem, each.fix
    newest = max((each.schema.version for each in schemas), default=0)
    if newest > event_type.version:
        known = f"and this code knows up to {event_type.version}"
        fix = f"Deploy the code that declares version {newest}."
        yield f"{event_type.name} has version {newest}, {known}", fix
