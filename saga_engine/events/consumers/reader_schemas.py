"""
Whether consumers can read the events of which schemas are registered.

A consumer is a reader: its models are compared with what others write, and are not registered.
`saga-engine schemas check` does it. A process of consumers does not: an event that it cannot read
stops it before that event, and loses nothing.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from saga_engine.errors import DefinitionError
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.event_store.event_schema import event_schemas
from saga_engine.events.event_store.event_types import EventType
from saga_engine.events.handlers.event_handler import EventHandler
from saga_engine.nearest_name import ALMOST_EQUAL, LIKE, nearest_name
from saga_engine.postgres.statement import Transaction
from saga_engine.schemas import registry
from saga_engine.schemas.comparison import compare
from saga_engine.schemas.compatibility import Compatibility
from saga_engine.schemas.declared_schema import SchemaKind
from saga_engine.schemas.judgement import judge
from saga_engine.schemas.stored_schema import StoredSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadEvent:
    """
    An event that a consumer reads with a model, or that has a problem.

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


async def check_readers(
    tx: Transaction, consumers: Sequence[Consumer], declared: Collection[str] = ()
) -> list[ReadEvent]:
    """
    Compare the models of consumers with the registered schemas of their events.

    An event of which none is registered is a problem: nothing could be compared, and its name may
    be misspelt. Functions that get JSON read everything. They are left out, unless their event has
    almost the name of a registered one.

    Args:
        tx: of the registry.
        consumers: valid ones.
        declared: the names of events that their module declares; they may be registered later.
    """
    handlers = [(each.name, handler) for each in consumers for handler in each.handlers.values()]
    stored = await registry.read(tx, {each.event_name for _, each in handlers})
    subjects = await registry.read_subjects(tx) if handlers else {}
    known = [each.subject for each in subjects.values() if each.kind is SchemaKind.EVENT]
    read = []
    for consumer, each in handlers:
        schemas = [found for found in stored if found.subject == each.event_name]
        is_missing = not schemas and each.event_name not in declared
        problems = _not_registered(each, known) if is_missing else _problems(each, schemas)
        read.append(_read_event(consumer, each, len(schemas), [*problems]))
    return [
        event
        for (_, handler), event in zip(handlers, read, strict=True)
        if handler.event_type or event.problems
    ]


def _read_event(
    consumer: str, handler: EventHandler, schemas: int, problems: Sequence[tuple[str, str]]
) -> ReadEvent:
    location = (handler.event_type or handler.call).source_location
    return ReadEvent(
        consumer=consumer,
        event=handler.event_name,
        schemas=schemas,
        problems=tuple(
            DefinitionError(f"Consumer {consumer!r}: {problem}.", location=location, fix=fix)
            for problem, fix in problems
        ),
        location=location,
    )


def _not_registered(handler: EventHandler, known: Collection[str]) -> Iterator[tuple[str, str]]:
    """Say that no schema of an event is registered, and which name was probably meant."""
    name = handler.event_name
    # A program of others may publish order-paid beside order-placed, and register no schema.
    meant = nearest_name(name, known, ALMOST_EQUAL if handler.event_type is None else LIKE)
    if handler.event_type is None and not meant:
        return
    correct = (
        f"Correct the name, if you meant {meant}, which is registered. Or register"
        if meant
        else "Register"
    )
    fix = (
        f"{correct} it with `saga-engine schemas register MODULE` of the program that publishes it;"
        " its database is SAGA_ENGINE_REGISTRY_DATABASE_URL of the consumer."
    )
    yield f"no schema of {name} is registered, so nothing was compared", fix


def _problems(handler: EventHandler, schemas: Sequence[StoredSchema]) -> Iterator[tuple[str, str]]:
    if (event_type := handler.event_type) is None:
        return
    find = _model_problems if event_type.reads_any_version else _class_problems
    yield from find(event_type, schemas)


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
