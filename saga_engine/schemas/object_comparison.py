"""The fields of objects and the items of arrays: which schema reads which one of a writer's."""

from collections.abc import Iterator, Mapping
from typing import Any

from saga_engine.schemas.incompatibility import Problem
from saga_engine.schemas.schema_side import ANYTHING, Node

_TEXT: Node = {"type": "string"}


class ArrayParts:
    """The items of an array: the first ones by their place, then all others."""

    def __init__(self, node: Node) -> None:
        self.first: list[Any] = list(node.get("prefixItems", ()))
        self.rest: Any = node.get("items", ANYTHING)
        self.most: int | None = node.get("maxItems")

    def pairs(self, reader: "ArrayParts") -> Iterator[tuple[str, Any, Any]]:
        """The place of items that are written, their schema, and the one that reads them."""
        named = max(len(self.first), len(reader.first))
        for place in range(named if self.most is None else min(named, self.most)):
            yield str(place), self.at(place), reader.at(place)
        if self.most is None or self.most > named:
            yield "", self.rest, reader.rest

    def at(self, place: int) -> Any:
        """Return the schema of the item at a place."""
        return self.first[place] if place < len(self.first) else self.rest


class ObjectParts:
    """The fields of an object: those with a name, those whose name fits a pattern, all others."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.fields: dict[str, Any] = dict(node.get("properties", {}))
        self.required: list[str] = list(node.get("required", ()))
        self.patterns: dict[str, Any] = dict(node.get("patternProperties", {}))
        self.others: Any = node.get("additionalProperties")
        self.name_schema: Any = node.get("propertyNames", ANYTHING)

    @property
    def is_closed(self) -> bool:
        """
        Whether a reader refuses fields that it does not name.

        pydantic refuses a key of a map that fits no pattern, without `additionalProperties`.
        """
        return self.others is False or (self.others is None and bool(self.patterns))

    @property
    def has_others(self) -> bool:
        """Whether a writer writes fields that its schema does not name."""
        return self.others is not None and self.others is not False

    def with_size(self) -> Node:
        """The node, with how many fields a writer writes at least and at most."""
        sizes: dict[str, Any] = {"minProperties": len(self.required)}
        if not self.has_others and not self.patterns:
            sizes["maxProperties"] = len(self.fields)
        return {**sizes, **self._node}

    def absent_fields(self, reader: "ObjectParts") -> Iterator[tuple[str, Problem]]:
        """Fields that the reader requires, and that are or may be absent."""
        for name in reader.required:
            names = reader.plain_names_of(name)
            if not any(each in self.required for each in names):
                never = not any(each in self.fields for each in names) and not self.has_others
                yield name, Problem.MISSING if never else Problem.OPTIONAL

    def unknown_fields(self, reader: "ObjectParts") -> Iterator[tuple[str, Problem]]:
        """Fields that are written, and that the reader refuses because it does not name them."""
        if not reader.is_closed:
            return
        # Of two names of one field, pydantic reads one and refuses the other.
        named = [
            [each for each in reader.plain_names_of(name) if each in self.fields]
            for name in reader.fields
        ]
        known = {each[0] for each in named if each}
        names = [name for name in self.fields if name not in known]
        names += ["*"] if self.has_others else []
        names += [f"/{pattern}/" for pattern in self.patterns if pattern not in reader.patterns]
        yield from ((name, Problem.UNKNOWN_FIELD) for name in names)

    def pairs(self, reader: "ObjectParts") -> Iterator[tuple[str, Any, Any]]:
        """The name of fields that are written, their schema, and each that reads them."""
        fields = reader.fields_by_name(self)
        for name, schema in self.fields.items():
            read_by = [*fields.get(name, ()), *reader.others_of(name, fields)]
            yield from ((name, schema, each) for each in read_by)
        if self.has_others:
            for name, schemas in fields.items():
                if name not in self.fields:
                    yield from ((name, self.others, each) for each in schemas)
            unnamed = [*reader.patterns.values(), reader.others]
            yield from (("*", self.others, each) for each in unnamed if _is_schema(each))
        for pattern, schema in self.patterns.items():
            # A name that fits this pattern may be a field of the reader, or fit another pattern.
            readers = {**reader.fields, **reader.patterns}
            same = readers.get(pattern)
            others = [same] if same is not None else [*readers.values(), reader.others]
            yield from ((f"/{pattern}/", schema, each) for each in others if _is_schema(each))

    def names_of(self, field: str) -> list[Any]:
        """The names by which a reader reads a field, in their order; a path is a list."""
        schema = self.fields.get(field)
        names: list[Any] = schema.get("readAs", [field]) if isinstance(schema, Mapping) else [field]
        return names

    def plain_names_of(self, field: str) -> list[str]:
        """The names of a field without those that are paths."""
        return [each for each in self.names_of(field) if isinstance(each, str)]

    def fields_by_name(self, writer: "ObjectParts") -> dict[str, list[Any]]:
        """For each name that is read, the schemas of the fields that may be read by it."""
        found: dict[str, list[Any]] = {}
        for field, schema in self.fields.items():
            for name in self.names_of(field):
                if isinstance(name, str):
                    found.setdefault(name, []).append(schema)
                    if name in writer.required:
                        break  # the names after one that is always there are not looked at
        return found

    def inner_fields(self, reader: "ObjectParts") -> Iterator[tuple[str, str]]:
        """Fields that are read from inside a field that may be written, and that field."""
        for field in reader.fields:
            for name in reader.names_of(field):
                if name in self.required:
                    break
                if isinstance(name, list) and (name[0] in self.fields or self.has_others):
                    yield field, name[0]

    def others_of(self, name: str, fields: Mapping[str, Any]) -> Iterator[Any]:
        """Each schema that may read a field with a name, beside those of *fields*."""
        yield from self.patterns.values()  # the name may fit each of them
        if name not in fields and _is_schema(self.others):
            yield self.others

    def names(self, reader: "ObjectParts") -> Iterator[tuple[str, Any]]:
        """The names that are written, as schemas, if the reader does not accept every name."""
        if reader.name_schema is ANYTHING:
            return
        for name in self.fields:
            yield name, {"const": name}
        if self.has_others:
            # pydantic leaves out the type of a name, which is always a text.
            written = self.name_schema
            has_type = "$ref" in written or "anyOf" in written
            yield "*", written if has_type else {**_TEXT, **written}


def _is_schema(schema: Any) -> bool:
    return schema is not None and schema is not False
