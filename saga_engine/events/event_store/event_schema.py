"""The schema of a declared event: its JSON Schemas, and its upcasters for older versions."""

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

from saga_engine.errors import UnreadableEvent
from saga_engine.events.event_store.event_types import EventType, schema_of_event
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.schemas.declared_schema import (
    DeclaredSchema,
    ReadExample,
    ReadFailure,
    SchemaKind,
    is_described,
)
from saga_engine.vocabulary import Json

_EXAMPLE_TIME = datetime(2000, 1, 1, tzinfo=UTC)


def event_schemas(
    event_types: Iterable[EventType], time_limit: CallTimeLimit = NO_TIME_LIMIT
) -> list[DeclaredSchema]:
    """Make the schemas of events; *time_limit* interrupts their upcasters."""
    return [_declare(each, time_limit) for each in dict.fromkeys(event_types)]


def _declare(event_type: EventType, time_limit: CallTimeLimit) -> DeclaredSchema:
    schema, fingerprint = schema_of_event(event_type)
    return DeclaredSchema(
        subject=event_type.name,
        kind=SchemaKind.EVENT,
        schema=schema,
        fingerprint=fingerprint,
        source_location=event_type.source_location,
        is_described=is_described(schema, event_type.payload_type),
        read_example=_reader(event_type, time_limit),
    )


def _reader(event_type: EventType, time_limit: CallTimeLimit) -> ReadExample:
    def read_example(version: int, data: Json) -> ReadFailure | None:
        example = Recorded(
            stream="example-1",
            version=1,
            position=1,
            type=event_type.name,
            schema_version=version,
            recorded_at=_EXAMPLE_TIME,
            id=UUID(int=0),
            data=data,
        )
        try:
            event_type.read(example, time_limit)
        except UnreadableEvent as error:
            return ReadFailure(error.problem, error.fix)
        return None

    return read_example
