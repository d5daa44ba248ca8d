"""
Whether one JSON Schema reads all that another one writes; if not, what is wrong at which field.

The writer is closed: an object has no field that its schema does not name. The reader is open: it
ignores fields that it does not know, as pydantic does, unless its schema forbids them. So adding an
optional field, and removing one, are compatible.

A verdict without incompatibilities is a promise. The opposite is not: of what cannot be decided,
such as two patterns or a keyword that pydantic does not emit, it is said that it may be refused.
Any two documents are compared in bounded time and depth.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saga_engine.schemas.fixed_values import JSON_TYPES, FixedValues, fixed_values, schema_of_value
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
    Union,
    assertions,
)
from saga_engine.schemas.union_choice import may_convert, rivals
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
        union, writers = self._reader.union(reader), self._writer.members(writer)
        for each in writers:
            if len(union.members) == 1:
                yield from self._compare_nodes(each, union.members[0], path)
                continue
            siblings = [other for other in writers if other is not each]
            for value_or_schema in self._alternatives(each):
                yield from self._find_reader(value_or_schema, siblings, union, path)

    def _alternatives(self, writer: Node) -> list[Node]:
        """Each value of a schema that lists some: different members of a union may accept them."""
        if "const" in writer:
            return [writer]
        values = self._writer.values_of(writer)
        if values is None and writer.get("type") == "boolean":
            values = FixedValues([True, False])
        return [writer] if values is None else [{"const": each} for each in values]

    def _find_reader(
        self, writer: Node, siblings: Sequence[Node], union: Union, path: str
    ) -> Found:
        """Find the member that is chosen and accepts all; else say what the only one refuses."""
        possible: dict[int, list[Incompatibility]] = {}
        for place, each in enumerate(union.members):
            self._count_step()
            if _may_overlap(writer, each, self._writer, self._reader):
                possible[place] = [
                    *_absent_tags(writer, union.tags[place], path),
                    *self._compare_nodes(writer, each, path),
                ]
        accepting = [place for place, found in possible.items() if not found]
        if any(
            not self._has_rivals(writer, siblings, union, place, possible) for place in accepting
        ):
            return
        nearest = [p for p in possible if not _lacks_required(writer, union.members[p])] or [
            *possible
        ]
        if len(nearest) == 1 and not accepting:
            yield from possible[nearest[0]]
            return
        read = f"none of the {len(union.members)} types of its union accepts that"
        if accepting:
            read = "may be read as another type of its union"
        yield Incompatibility(path or "body", Problem.UNION, f"is {_describe(writer)}", read)

    def _has_rivals(
        self,
        writer: Node,
        siblings: Sequence[Node],
        union: Union,
        chosen: int,
        possible: Mapping[int, Any],
    ) -> bool:
        """Whether another member may be chosen that is not one of the writer's own union."""
        written = _type_of(writer)
        for place in rivals(written, union, chosen):
            member = union.members[place]
            is_possible = place in possible or (union.is_ordered and may_convert(written, member))
            if _lacks_required(writer, member):
                continue
            if is_possible and not any(self._is_same(each, member) for each in siblings):
                return True
        return False

    def _is_same(self, writer: Node, reader: Node) -> bool:
        """
        Whether a member of the writer's union is one of the reader's.

        What a writer writes, its own class has read back: it is not another member there.
        """
        if _type_of(writer) != _type_of(reader) or writer.get("format") != reader.get("format"):
            return False
        written = writer.get("properties", {})
        names = {name for name, each in written.items() if not _is_read_only(each)}
        return names == reader.get("properties", {}).keys() and not any(
            self._compare_nodes(writer, reader, "")
        )

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
        for name, outer in mine.inner_fields(other):
            read = f"is read from inside `{outer}`, which this check does not follow"
            yield Incompatibility(_join(path, name), Problem.NOT_UNDERSTOOD, "", read)
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


def _absent_tags(writer: Node, tags: Sequence[str], path: str) -> Found:
    """Name the fields by which the reader chooses a member, and that may be absent."""
    for tag in tags if writer.get("type") == "object" else ():
        schema = writer.get("properties", {}).get(tag)
        is_written = isinstance(schema, Mapping) and "default" in schema
        is_left_out = isinstance(schema, Mapping) and schema.get("mayBeAbsent")
        if tag not in writer.get("required", ()) and (not is_written or is_left_out):
            problem = Problem.MISSING if schema is None else Problem.OPTIONAL
            yield Incompatibility(_join(path, tag), problem, *_FIELD_TEXTS[problem])


def _lacks_required(writer: Node, reader: Node) -> bool:
    """Whether the reader always refuses what is written, for want of a field."""
    absent = ObjectParts(writer).absent_fields(ObjectParts(reader))
    return "properties" in writer and any(problem is Problem.MISSING for _, problem in absent)


def _type_of(node: Node) -> Any:
    """Return the JSON type of a schema, also if it lists values of one type."""
    values = fixed_values(node)
    types = {JSON_TYPES[type(each)] for each in values or ()}
    return types.pop() if len(types) == 1 else node.get("type")


def _is_read_only(schema: Any) -> bool:
    return isinstance(schema, Mapping) and bool(schema.get("readOnly"))


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
