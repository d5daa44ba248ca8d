"""A schema as it is registered: a version of a subject, with an id."""

from dataclasses import dataclass
from datetime import datetime

from saga_engine.schemas.compatibility import Compatibility, VersionSchema
from saga_engine.schemas.declared_schema import SchemaKind


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchema:
    """
    A registered version.

    Args:
        id: from 1, in the order of registration; the same for the same JSON Schemas.
        subject: what it is a version of.
        schema: the declared version, and its JSON Schemas.
        fingerprint: of the JSON Schemas.
        registered_at: when the first process loaded it.
    """

    id: int
    subject: str
    schema: VersionSchema
    fingerprint: str
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class StoredSubject:
    """What a subject is, and which of its versions must read each other."""

    subject: str
    kind: SchemaKind
    compatibility: Compatibility
