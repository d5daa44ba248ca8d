"""
The schemas of a saga: what each of its steps sends, and the reply that it reads.

    place-order/reserve                the command of step `reserve`
    place-order/reserve/reply          its reply
    place-order/reserve/compensation   the command that undoes it

The version is that of the saga. The names of events have no slash.
"""

from collections.abc import Iterator

from saga_engine.payload.payload import PayloadType
from saga_engine.saga.definition import Saga
from saga_engine.schemas.declared_schema import (
    DeclaredSchema,
    SchemaKind,
    is_described,
    version_schema,
)


def schemas_of_saga(saga: Saga) -> Iterator[DeclaredSchema]:
    """Make the schemas of a saga; a reply that may be any JSON has none."""
    for name, step in saga.steps.items():
        subject = f"{saga.name}/{name}"
        action, location = step.action_spec, step.source_location
        command = SchemaKind.COMMAND
        yield _declare(saga, subject, command, action.mapping.payload_type, location)
        reply = _declare(saga, f"{subject}/reply", SchemaKind.REPLY, action.reply_type, location)
        if reply.schema.reads or not reply.is_described:
            yield reply
        if step.compensation_spec is not None:
            undo = step.compensation_spec
            of_undo, at = f"{subject}/compensation", undo.source_location
            yield _declare(saga, of_undo, command, undo.mapping.payload_type, at)


def _declare(
    saga: Saga, subject: str, kind: SchemaKind, payload_type: PayloadType, location: str
) -> DeclaredSchema:
    schema, fingerprint = version_schema(saga.version, payload_type)
    return DeclaredSchema(
        subject=subject,
        kind=kind,
        schema=schema,
        fingerprint=fingerprint,
        source_location=location,
        is_described=is_described(schema, payload_type),
    )
