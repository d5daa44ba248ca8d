"""
Whether a declared schema and those registered before it can read each other; what to do if not.

An earlier version of an event is read through its upcasters, which are tried on examples of it. All
other pairs are compared by their JSON Schemas.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from saga_engine.schemas.comparison import compare
from saga_engine.schemas.compatibility import Compatibility
from saga_engine.schemas.declared_schema import DeclaredSchema, ReadFailure, SchemaKind
from saga_engine.schemas.examples import examples
from saga_engine.schemas.incompatibility import Incompatibility, Problem
from saga_engine.schemas.stored_schema import StoredSchema
from saga_engine.vocabulary import Json


class BreakDirection(StrEnum):
    """Which of two versions cannot read the other."""

    BACKWARD = "backward"  # the new one cannot read what the earlier one has written
    FORWARD = "forward"  # the earlier one cannot read what the new one writes


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaBreak:
    """
    A declared schema and an earlier one, of which one cannot read the other.

    Args:
        declared: what the module declares.
        earlier: what was registered before.
        direction: which of the two cannot read the other.
        incompatibility: where, and why.
        read_failure: of an example that the upcasters were tried on; None if they were not.
    """

    declared: DeclaredSchema
    earlier: StoredSchema
    direction: BreakDirection
    incompatibility: Incompatibility
    read_failure: ReadFailure | None = None

    @property
    def problem(self) -> str:
        """What is wrong, in one sentence without a full stop."""
        subject, version = self.declared.subject, self.declared.schema.version
        old, new = self.earlier_name, self._declared_name
        if self.direction is BreakDirection.BACKWARD:
            detail = self.incompatibility.sentence(old, new)
            return f"{subject} version {version} cannot read {old}: {detail}"
        detail = self.incompatibility.sentence(new, old)
        return f"{old} of {subject} cannot read version {version}: {detail}"

    @property
    def fix(self) -> str:
        """What the author does next."""
        if self.read_failure is not None:
            return self.read_failure.fix
        allowed = (
            f" Or allow it: `saga-engine schemas set {self.declared.subject} --compatibility MODE`."
        )
        if self.direction is BreakDirection.FORWARD:
            return f"Keep what {self.earlier_name} reads.{allowed}"
        is_absent = self.incompatibility.problem in (Problem.MISSING, Problem.OPTIONAL)
        change = (
            "Give it a default" if is_absent else f"Accept what {self.earlier_name} has written"
        )
        if self.incompatibility.problem is Problem.AVRO:
            change = "Give a new field a default that Avro has"
        if self.declared.kind is not SchemaKind.EVENT:
            return f"{change}.{allowed}"
        version = self.declared.schema.version
        return (
            f"{change}, or raise the version to {version + 1} and declare an upcast from version"
            f" {version}."
        )

    @property
    def earlier_name(self) -> str:
        """The earlier version in a sentence."""
        version = self.earlier.schema.version
        if version != self.declared.schema.version:
            return f"version {version}"
        return f"schema {self.earlier.id}"

    @property
    def _declared_name(self) -> str:
        version = self.declared.schema.version
        return f"version {version}" if self.earlier.schema.version != version else "the class"


def judge(
    declared: DeclaredSchema, stored: Sequence[StoredSchema], compatibility: Compatibility
) -> Iterator[SchemaBreak]:
    """
    Compare a declared schema with those before it.

    Args:
        declared: which one; it may be registered already.
        stored: all registered schemas of its subject, in the order of versions and ids. A version
            that is newer than the declared one is not compared: older code may start again.
        compatibility: which versions must read each other.
    """
    earlier = earlier_schemas(declared, stored)
    compared = earlier if compatibility.is_transitive else earlier[-1:]
    if compatibility.is_backward:
        later = _later_schemas(declared, stored) if declared.kind is SchemaKind.EVENT else ()
        for each in (*compared, *later):
            yield from _backward(declared, each)
    if compatibility.is_forward:
        for each in compared:
            for found in _compare(declared, each, declared.schema.writes, each.schema.reads):
                yield SchemaBreak(
                    declared=declared,
                    earlier=each,
                    direction=BreakDirection.FORWARD,
                    incompatibility=found,
                )


def earlier_schemas(declared: DeclaredSchema, stored: Sequence[StoredSchema]) -> list[StoredSchema]:
    """Return those of *stored* that were before a declared schema."""
    version, own_id = declared.schema.version, _own_id(declared, stored)
    return [
        each
        for each in stored
        if each.schema.version < version
        or (
            each.schema.version == version
            and each.fingerprint != declared.fingerprint
            and (own_id is None or each.id < own_id)
        )
    ]


def _later_schemas(declared: DeclaredSchema, stored: Sequence[StoredSchema]) -> list[StoredSchema]:
    """
    Return those of the same version that were registered after a declared schema.

    When a class is rolled back, events that the newer class has stored are there to be read. What
    is not stored, as commands and replies, is over with the newer class.
    """
    version, own_id = declared.schema.version, _own_id(declared, stored)
    return [
        each
        for each in stored
        if each.schema.version == version and own_id is not None and each.id > own_id
    ]


def _own_id(declared: DeclaredSchema, stored: Sequence[StoredSchema]) -> int | None:
    own = [
        each.id
        for each in stored
        if each.schema.version == declared.schema.version
        and each.fingerprint == declared.fingerprint
    ]
    return min(own, default=None)


def _compare(
    declared: DeclaredSchema, earlier: StoredSchema, writer: Json, reader: Json
) -> Sequence[Incompatibility]:
    return compare(writer, reader) if earlier.fingerprint != declared.fingerprint else ()


def _backward(declared: DeclaredSchema, earlier: StoredSchema) -> Iterator[SchemaBreak]:
    for found, failure in _unread(declared, earlier):
        yield SchemaBreak(
            declared=declared,
            earlier=earlier,
            direction=BreakDirection.BACKWARD,
            incompatibility=found,
            read_failure=failure,
        )


def _unread(
    declared: DeclaredSchema, earlier: StoredSchema
) -> Iterator[tuple[Incompatibility, ReadFailure | None]]:
    version = earlier.schema.version
    if declared.read_example is None or version == declared.schema.version:
        for found in _compare(declared, earlier, earlier.schema.writes, declared.schema.reads):
            yield found, None
        return
    for each in examples(earlier.schema.writes):
        if failure := declared.read_example(version, each):
            read = f"an example of version {version} is not read: {failure.problem}"
            yield Incompatibility("body", Problem.UPCAST, "", read), failure
            return  # of one upcaster, the first example says enough
