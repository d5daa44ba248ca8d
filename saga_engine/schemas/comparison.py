"""
Whether one JSON Schema reads all that another one writes; if not, what is wrong at which field.

The writer is closed: an object has no field that its schema does not name. The reader is open: it
ignores fields that it does not know, as pydantic does, unless its schema forbids them. So adding an
optional field, and removing one, are compatible.

A verdict without incompatibilities is a promise. The opposite is not: of what cannot be decided,
such as two patterns or a keyword that pydantic does not emit, it is said that it may be refused.
Any two documents are compared in bounded time and depth.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from saga_engine.schemas.fixed_values import FixedValues, fixed_values, schema_of_value
from saga_engine.schemas.incompatibility import Incompatibility, Problem
from saga_engine.schemas.object_comparison import ArrayParts, ObjectParts
from saga_engine.schemas.scalar_comparison import (
    compare_limits,
    compare_numbers,
    compare_texts,
    describe_type,
)
from saga_engine.schemas.schema_side import (
    NOT_UNDERSTOOD,
    Node,
    SchemaSide,
    assertions,
)
from saga_engine.vocabulary import Json

MAX_STEPS = 100_000
"""
Pairs of schemas that one comparison looks at. Two unions of 300 members have 90,000; a larger
schema is reported as one that cannot be compared, instead of delaying the start of a process.
"""

MAX_DEPTH = 50
"""Objects and arrays inside one another; each takes several frames of Python's stack of 1,000."""

MAX_FOUND = 50
"""Incompatibilities of one comparison: a person reads the first few."""

Found = Iterator[Incompatibility]


def compare(writer: Json, reader: Json) -> list[Incompatibility]:
    """
    Compare two JSON Schemas.

    Args:
        writer: describes what is written.
        reader: describes what is read.

    Returns:
        What the reader may refuse; empty if it reads everything.
    """
    comparison = _Comparison(SchemaSide(writer), SchemaSide(reader))
    try:
        found = [*comparison.compare(writer, reader, "")]
    except _TooLarge:
        read = f"is beyond what is compared: {MAX_STEPS} pairs of schemas, {MAX_DEPTH} levels"
        return [Incompatibility("body", Problem.TOO_LARGE, "", read)]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, ArithmeticError):
        # A keyword has a value that no JSON Schema allows, by the author's json_schema_extra.
        read = "is not described by a JSON Schema that can be read"
        return [Incompatibility("body", Problem.NOT_UNDERSTOOD, "", read)]
    return [*dict.fromkeys(found)][:MAX_FOUND]


class _TooLarge(Exception):
    """The comparison has reached a bound."""


class _Comparison:
    """Compares the schemas of two documents. The path of the document itself is empty."""

    def __init__(self, writer: SchemaSide, reader: SchemaSide) -> None:
        self._writer = writer
        self._reader = reader
        self._steps = 0
        self._depth = 0
        self._in_progress: set[tuple[int, int]] = set()

    def compare(self, writer: Any, reader: Any, path: str) -> Found:
        """Compare a schema of the writer's document with one of the reader's."""
        readers = self._reader.members(reader)
        for each in self._writer.members(writer):
            yield from self._compare_with_union(each, readers, path)

    def _compare_with_union(self, writer: Node, readers: Sequence[Node], path: str) -> Found:
        if len(readers) == 1:
            yield from self._compare_nodes(writer, readers[0], path)
            return
        for value_or_schema in self._alternatives(writer):
            yield from self._find_reader(value_or_schema, readers, path)

    def _alternatives(self, writer: Node) -> list[Node]:
        """Each value of a schema that lists some: different members of a union may accept them."""
        if "const" in writer:
            return [writer]
        values = self._writer.values_of(writer)
        if values is None and writer.get("type") == "boolean":
            values = FixedValues([True, False])
        return [writer] if values is None else [{"const": each} for each in values]

    def _find_reader(self, writer: Node, readers: Sequence[Node], path: str) -> Found:
        """Find a member that accepts everything; else say what the only possible one refuses."""
        possible = []
        for each in readers:
            self._count_step()
            if not _may_overlap(writer, each, self._writer, self._reader):
                continue
            found = [*self._compare_nodes(writer, each, path)]
            if not found:
                return
            possible.append(found)
        if len(possible) == 1:
            yield from possible[0]
        else:
            read = f"none of the {len(readers)} types of its union accepts that"
            yield Incompatibility(path or "body", Problem.UNION, f"is {_describe(writer)}", read)

    def _compare_nodes(self, writer: Node, reader: Node, path: str) -> Found:
        self._count_step()
        pair = (id(writer), id(reader))
        if pair in self._in_progress:
            return  # a schema that contains itself: what is found is found outside
        self._in_progress.add(pair)
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise _TooLarge
            yield from self._compare_once(writer, reader, path)
        finally:
            self._depth -= 1
            self._in_progress.discard(pair)

    def _count_step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _TooLarge

    def _compare_once(self, writer: Node, reader: Node, path: str) -> Found:
        if not assertions(reader):
            return
        unknown = [*_not_understood(writer, reader)]
        for keyword in unknown:
            read = f"has the keyword `{keyword}`, which this check does not understand"
            yield Incompatibility(path or "body", Problem.NOT_UNDERSTOOD, "", read)
        if unknown:
            return
        written, accepted = self._writer.values_of(writer), self._reader.values_of(reader)
        if written is not None:
            for each in written:
                self._count_step()
                yield from self._compare_value(each, reader, accepted, path)
        elif accepted is not None:
            yield from _compare_with_values(writer, accepted, path)
        else:
            yield from self._compare_types(writer, reader, path)

    def _compare_value(
        self, value: Json, reader: Node, accepted: FixedValues | None, path: str
    ) -> Found:
        if accepted is None:
            yield from self._compare_types(schema_of_value(value), reader, path)
        elif value not in accepted:
            read = f"accepts only {accepted.text}"
            yield Incompatibility(path or "body", Problem.VALUE, f"may be {value!r}", read)

    def _compare_types(self, writer: Node, reader: Node, path: str) -> Found:
        written, read = writer.get("type"), reader.get("type")
        if read is not None and written != read and (written, read) != ("integer", "number"):
            yield Incompatibility(
                path or "body", Problem.TYPE, f"is {_describe(writer)}", f"is {_describe(reader)}"
            )
        elif written == "string":
            yield from compare_texts(writer, reader, path or "body")
        elif written in ("integer", "number"):
            yield from compare_numbers(writer, reader, path or "body")
        elif written == "array":
            yield from self._compare_arrays(writer, reader, path)
        elif written == "object":
            yield from self._compare_objects(writer, reader, path)
        elif written is None and assertions(reader) != {"type"}:
            read_as = f"is {_describe(reader)}"
            yield Incompatibility(path or "body", Problem.TYPE, "is any JSON", read_as)

    def _compare_arrays(self, writer: Node, reader: Node, path: str) -> Found:
        yield from compare_limits(writer, reader, path or "body", ("minItems", "maxItems"))
        if reader.get("uniqueItems") and not writer.get("uniqueItems"):
            problem = Problem.LIMIT
            yield Incompatibility(path or "body", problem, "may repeat items", "has each item once")
        for label, mine, other in ArrayParts(writer).pairs(ArrayParts(reader)):
            yield from self.compare(mine, other, f"{path}[{label}]")

    def _compare_objects(self, writer: Node, reader: Node, path: str) -> Found:
        mine, other = ObjectParts(writer), ObjectParts(reader)
        for name, problem in (*mine.absent_fields(other), *mine.unknown_fields(other)):
            yield Incompatibility(_join(path, name), problem, *_FIELD_TEXTS[problem])
        limits = ("minProperties", "maxProperties")
        yield from compare_limits(mine.with_size(), reader, path or "body", limits)
        for name, writer_part, reader_part in mine.pairs(other):
            yield from self.compare(writer_part, reader_part, _join(path, name))
        for name, names in mine.names(other):
            yield from self.compare(names, other.name_schema, f"{_join(path, name)} (the name)")


_FIELD_TEXTS = {
    Problem.MISSING: ("is absent", "is required"),
    Problem.OPTIONAL: ("may be absent", "is required"),
    Problem.UNKNOWN_FIELD: ("is written", "is not accepted"),
}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _not_understood(writer: Node, reader: Node) -> Iterator[str]:
    """Name the keywords that decide what fits, unless both sides have them with one value."""
    for keyword in sorted(NOT_UNDERSTOOD):
        if keyword in writer or keyword in reader:
            mine, other = writer.get(keyword), reader.get(keyword)
            if mine != other or "$ref" in repr(mine) or keyword == "$ref":
                yield keyword
    for node in (writer, reader):
        unions = {"anyOf", "oneOf"} & node.keys()
        if unions and assertions(node) - unions:
            yield f"{min(unions)}` beside `{min(assertions(node) - unions)}"


def _compare_with_values(writer: Node, accepted: FixedValues, path: str) -> Found:
    few: dict[str, list[Json]] = {"boolean": [True, False], "null": [None]}
    written = few.get(writer.get("type", ""))
    if written is None or not all(each in accepted for each in written):
        read = f"accepts only {accepted.text}"
        yield Incompatibility(path or "body", Problem.VALUE, f"is {_describe(writer)}", read)


def _describe(node: Node) -> str:
    values = fixed_values(node)
    if values is not None:
        return values.text
    json_type = node.get("type")
    return "any JSON" if json_type is None else describe_type(json_type)


def _may_overlap(writer: Node, reader: Node, mine: SchemaSide, other: SchemaSide) -> bool:
    """Whether a value may fit both, by its type and by fields that have one value, as tags do."""
    written, read = mine.values_of(writer), other.values_of(reader)
    if written is not None and read is not None:
        return written.overlaps(read)
    if written is not None and len(written) == 1:
        writer = schema_of_value(next(iter(written)))
    types = {writer.get("type"), reader.get("type")} - {None}
    if len(types) == 2 and types != {"integer", "number"}:
        return False
    fields = reader.get("properties", {})
    for name in writer.get("properties", {}).keys() & fields.keys():
        tag = _only_values(writer["properties"][name], mine)
        expected = _only_values(fields[name], other)
        if tag and expected and not tag.overlaps(expected):
            return False
    return True


def _only_values(schema: Any, side: SchemaSide) -> FixedValues | None:
    members = side.members(schema)
    return side.values_of(members[0]) if len(members) == 1 else None
