"""The schema of an event, a command or a reply, as a module declares it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.canonical import fingerprint
from saga_engine.schemas.compatibility import Compatibility, VersionSchema
from saga_engine.schemas.schema_side import SchemaSide, assertions
from saga_engine.vocabulary import Json


class SchemaKind(StrEnum):
    """What a schema describes."""

    EVENT = "event"
    COMMAND = "command"
    REPLY = "reply"

    @property
    def default_compatibility(self) -> Compatibility:
        """
        What is compared until `saga-engine schemas set` chooses another mode.

        Events are stored without end, so new code must read each of them. A command is read by
        participants that may be older than the worker, and a reply is written by them.
        """
        return _DEFAULTS[self]


_DEFAULTS = {
    SchemaKind.EVENT: Compatibility.BACKWARD_TRANSITIVE,
    SchemaKind.COMMAND: Compatibility.FORWARD,
    SchemaKind.REPLY: Compatibility.BACKWARD,
}


@dataclass(frozen=True, slots=True)
class ReadFailure:
    """
    Why data of an older version is not read.

    Args:
        problem: a clause without a full stop.
        fix: what the author does next, in whole sentences.
    """

    problem: str
    fix: str


ReadExample: TypeAlias = Callable[[int, Json], ReadFailure | None]
"""
Reads data of an older version, as the upcasters do; returns why that fails, None if it does not.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredSchema:
    """
    One schema.

    Args:
        subject: what is compared with earlier versions: the name of an event, or a message of a
            saga's step, see `saga_schemas`.
        kind: what it describes.
        schema: the declared version, and its JSON Schemas.
        fingerprint: of the JSON Schemas.
        source_location: `file:line` of the declaration.
        is_described: whether its JSON Schemas say what fits; see `is_described`.
        read_example: passes data of an older version through the upcasters; None for commands and
            replies, which have none.
    """

    subject: str
    kind: SchemaKind
    schema: VersionSchema
    fingerprint: str
    source_location: str
    is_described: bool = True
    read_example: ReadExample | None = None


def version_schema(version: int, payload_type: PayloadType) -> tuple[VersionSchema, str]:
    """Make the schema of a type, and its fingerprint."""
    writes, reads = payload_type.schema("serialization"), payload_type.schema("validation")
    return VersionSchema(version, writes, reads), fingerprint(writes, reads)


def is_described(schema: VersionSchema, payload_type: PayloadType) -> bool:
    """
    Whether the JSON Schemas of a type say what fits, so that they can be compared.

    pydantic has none for a class that only a function reads or writes. `Any` has none by intention.
    """
    documents = (schema.writes, schema.reads)
    members = [(each, SchemaSide(each).members(each)) for each in documents]
    return payload_type.is_any_json or all(
        len(found) > 1 or any(map(assertions, found)) for _, found in members
    )
