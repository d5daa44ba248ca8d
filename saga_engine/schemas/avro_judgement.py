"""
Whether consumers in Avro can read a declared schema and those before it, as Avro's checker says.

Only schemas of one version are compared. Messages of another version say so, and an upcaster of
this program is none of a consumer in another language.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from saga_engine.errors import InvalidInput
from saga_engine.schemas.avro_compatibility import compare_avro
from saga_engine.schemas.avro_schema import avro_type
from saga_engine.schemas.compatibility import Compatibility, VersionSchema
from saga_engine.schemas.declared_schema import DeclaredSchema
from saga_engine.schemas.incompatibility import Incompatibility, Problem
from saga_engine.schemas.judgement import BreakDirection, SchemaBreak, earlier_schemas
from saga_engine.schemas.stored_schema import StoredSchema


def unwritable(declared: DeclaredSchema) -> str | None:
    """Say why a schema cannot be written in Avro, and what to do; None: it can."""
    try:
        avro_type(declared.subject, declared.schema.writes)
    except InvalidInput as error:
        return str(error)
    return None


def judge_avro(
    declared: DeclaredSchema, stored: Sequence[StoredSchema], compatibility: Compatibility
) -> Iterator[SchemaBreak]:
    """
    Compare the Avro schema of a declared schema with those of its version before it.

    A schema without one is left out: nothing was ever written with it.

    Args:
        declared: which one; it may be registered already.
        stored: all registered schemas of its subject, in the order of versions and ids.
        compatibility: which versions must read each other.

    Raises:
        ConfigurationError: the extra `avro` is not installed.
    """
    own = _avro_schema(declared.subject, declared.schema)
    same = [each for each in stored if each.schema.version == declared.schema.version]
    earlier = earlier_schemas(declared, same)
    for each in earlier if compatibility.is_transitive else earlier[-1:]:
        other = _avro_schema(each.subject, each.schema)
        if own is None or other is None:
            continue
        if compatibility.is_backward:
            yield from _breaks(declared, each, BreakDirection.BACKWARD, compare_avro(other, own))
        if compatibility.is_forward:
            yield from _breaks(declared, each, BreakDirection.FORWARD, compare_avro(own, other))


def _breaks(
    declared: DeclaredSchema,
    earlier: StoredSchema,
    direction: BreakDirection,
    problems: Sequence[str],
) -> Iterator[SchemaBreak]:
    for each in problems:
        found = Incompatibility("body", Problem.AVRO, "", f"Avro's checker names {each}")
        yield SchemaBreak(
            declared=declared, earlier=earlier, direction=direction, incompatibility=found
        )


def _avro_schema(subject: str, schema: VersionSchema) -> Any:
    try:
        return avro_type(subject, schema.writes).schema
    except InvalidInput:
        return None
