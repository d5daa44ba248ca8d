"""Schemas as modules declare them, and as they are registered, of types or of JSON Schemas."""

from datetime import UTC, datetime
from typing import Any

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.canonical import fingerprint
from saga_engine.schemas.compatibility import VersionSchema
from saga_engine.schemas.declared_schema import (
    DeclaredSchema,
    ReadExample,
    SchemaKind,
    version_schema,
)
from saga_engine.schemas.stored_schema import StoredSchema


def declared_json(
    document: Any,
    version: int = 1,
    subject: str = "order-placed",
    kind: SchemaKind = SchemaKind.EVENT,
    read_example: ReadExample | None = None,
) -> DeclaredSchema:
    """A schema that is written and read as one JSON Schema."""
    return DeclaredSchema(
        subject=subject,
        kind=kind,
        schema=VersionSchema(version, document, document),
        fingerprint=fingerprint(document, document),
        source_location="orders.py:7",
        read_example=read_example,
    )


def declared_type(
    python_type: Any, version: int = 1, subject: str = "order-placed"
) -> DeclaredSchema:
    """The schema of an event with that content, and without upcasters."""
    schema, its_fingerprint = version_schema(version, PayloadType(python_type))
    return DeclaredSchema(
        subject=subject,
        kind=SchemaKind.EVENT,
        schema=schema,
        fingerprint=its_fingerprint,
        source_location="orders.py:7",
    )


def stored(declared: DeclaredSchema, schema_id: int) -> StoredSchema:
    """A declared schema as it is registered."""
    return StoredSchema(
        id=schema_id,
        subject=declared.subject,
        schema=declared.schema,
        fingerprint=declared.fingerprint,
        registered_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
