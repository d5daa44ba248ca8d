"""
The Avro schema of a JSON Schema, and conversions of values between JSON and Avro.

    object with fields            record, named as its class
    map, list, tuple, set         map, array
    a list of words               enum, if Avro allows each as a symbol; else string
    union, `None`                 union; two members must not be of one type
    UUID, date                    the logical types `uuid`, `date`
    AwareDatetime, NaiveDatetime  `timestamp-micros`, `local-timestamp-micros`
    Decimal with its digits       `decimal`; without, string
    any JSON                      a string that contains JSON

A field that may be absent has its default in Avro if that can be written there. Without a default,
and if `exclude_if` decides that it is absent, it is null then.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from saga_engine.errors import InvalidInput
from saga_engine.schemas.avro_reader import AvroReader
from saga_engine.schemas.avro_record import AvroField, read_record, record_fits, write_record
from saga_engine.schemas.avro_union import union_of
from saga_engine.schemas.avro_values import (
    ANY_JSON,
    BOOLEAN,
    DOUBLE,
    LONG,
    NULL,
    TEXT,
    AvroType,
    a_list,
    text_type,
)
from saga_engine.schemas.fixed_values import FixedValues, fixed_values
from saga_engine.schemas.object_comparison import ObjectParts
from saga_engine.schemas.schema_side import Node, SchemaSide, assertions
from saga_engine.vocabulary import Json

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SIMPLE = {"null": NULL, "boolean": BOOLEAN, "integer": LONG, "number": DOUBLE}

MAX_DEPTH = 50
"""Objects and arrays inside one another, as in `comparison`."""

MAX_PARTS = 10_000
"""
Parts of one schema. A class is one part however often it is used; a list or a map that contains
itself twice would have 2 to the power of MAX_DEPTH.
"""

_TYPES_OF_AVRO = frozenset(
    {
        *("null", "boolean", "int", "long", "float", "double", "bytes", "string"),
        *("record", "enum", "array", "map", "union", "fixed", "error"),
    }
)


def avro_type(subject: str, document: Json) -> AvroType:
    """
    Make the Avro type of a JSON Schema.

    Args:
        subject: names the schema. The record at the top is named after it and not after its class,
            which may be renamed.
        document: the JSON Schema of what is written.

    Raises:
        InvalidInput: it has no Avro schema; the text names the field and what to do.
    """
    return _Mapper(subject, document).map(document, "", 0)


def avro_name(text: str) -> str:
    """Replace what Avro does not allow in a name."""
    name = _NOT_IN_A_NAME.sub("_", text)
    return name if _NAME.match(name) else f"_{name}"


class _Mapper:
    def __init__(self, subject: str, document: Json) -> None:
        self._subject = subject
        self._side = SchemaSide(document)
        self._named: dict[int, AvroType] = {}
        self._names: set[str] = set()
        self._parts = 0

    def map(self, schema: Any, path: str, depth: int) -> AvroType:
        if depth > MAX_DEPTH:
            raise self._error(path, f"is nested deeper than {MAX_DEPTH} levels", "Use fewer.")
        self._parts += 1
        if self._parts > MAX_PARTS:
            problem = f"has more than {MAX_PARTS} parts"
            raise self._error("", problem, "Let what contains itself be a model.")
        types = [self._map_node(each, path, depth) for each in self._side.members(schema)]
        return self._union(types, path)

    def _union(self, types: Sequence[AvroType], path: str) -> AvroType:
        def conflict(kind: str) -> InvalidInput:
            problem = f"is a union with two members that are of type {kind} in Avro"
            return self._error(path, problem, "Make each a model with fields of its own.")

        return union_of(types, conflict)

    def _error(self, path: str, problem: str, fix: str) -> InvalidInput:
        return InvalidInput(
            f"{self._subject} has no Avro schema: `{path or 'body'}` {problem}. {fix}"
        )

    def _map_node(self, node: Node, path: str, depth: int) -> AvroType:
        values = fixed_values(node)
        if values is not None:
            return self._values_type(node, values, path)
        match node.get("type"):
            case "string":
                return text_type(node)
            case "array":
                return self._array(node, path, depth)
            case "object":
                return self._object(node, path, depth)
            case str() as simple if simple in _SIMPLE:
                return _SIMPLE[simple]
            case None if not assertions(node):
                return ANY_JSON
            case _:
                pass
        raise self._error(path, "has no type that Avro has", "Use a model, or a type of pydantic.")

    def _values_type(self, node: Node, values: FixedValues, path: str) -> AvroType:
        types = {type(each) for each in values}
        if types == {str}:
            texts = [str(each) for each in values]
            is_enum = "const" not in node and all(map(_NAME.match, texts))
            return self._enum(texts, node, path) if is_enum else TEXT
        simple = {int: LONG, bool: BOOLEAN, float: DOUBLE, type(None): NULL}
        parts = [simple.get(each, TEXT) for each in sorted(types, key=str)]
        return ANY_JSON if types & {list, dict} else self._union(parts, path)

    def _enum(self, symbols: list[str], node: Node, path: str) -> AvroType:
        known = self._named.get(id(node))
        if known is not None:
            return known
        symbols = [*dict.fromkeys(symbols)]
        name = self._new_name(node.get("title") or path)
        enum = AvroType(
            schema=name,
            json_types=frozenset({str}),
            encode=str,
            read=lambda source: symbols[source.index(len(symbols))],
            fits=frozenset(symbols).__contains__,
            is_named=True,
        )
        self._named[id(node)] = enum
        schema = {"type": "enum", "name": name, "symbols": symbols}
        return replace(enum, schema=schema)

    def _new_name(self, title: str) -> str:
        """Names are unique in an Avro schema; a second class of one name gets a number."""
        base, number = avro_name(title), 1
        base = f"{base}_" if base in _TYPES_OF_AVRO else base
        name = base
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name

    def _array(self, node: Node, path: str, depth: int) -> AvroType:
        schemas = [*node.get("prefixItems", ())]
        if "items" in node or not schemas:
            schemas.append(node.get("items", True))
        distinct = [each for n, each in enumerate(schemas) if each not in schemas[:n]]
        types = [self.map(each, f"{path}[]", depth + 1) for each in distinct]
        item = self._union(types, f"{path}[]")
        return AvroType(
            schema={"type": "array", "items": item.schema},
            json_types=frozenset({list}),
            encode=lambda values: [item.encode(each) for each in a_list(values)],
            read=lambda source: _read_array(source, item),
        )

    def _object(self, node: Node, path: str, depth: int) -> AvroType:
        parts = ObjectParts(node)
        others = [*parts.patterns.values()] + ([parts.others] if parts.has_others else [])
        if not others:
            return self._record(node, parts, path, depth)
        if parts.fields:
            problem = "has fields beside those of its class"
            raise self._error(path, problem, "Put them into a field that is a map.")
        values = self._union([self.map(each, f"{path}.*", depth + 1) for each in others], path)
        return AvroType(
            schema={"type": "map", "values": values.schema},
            json_types=frozenset({dict}),
            encode=lambda given: {key: values.encode(each) for key, each in given.items()},
            read=lambda source: _read_map(source, values),
        )

    def _record(self, node: Node, parts: ObjectParts, path: str, depth: int) -> AvroType:
        known = self._named.get(id(node))
        if known is not None:
            return known
        name = self._new_name(node.get("title") or path if path else self._subject)
        fields: list[AvroField] = []
        record = AvroType(
            schema=name,  # inside itself, and when it is used again
            json_types=frozenset({dict}),
            encode=lambda value: write_record(value, fields),
            read=lambda source: read_record(source, fields),
            fits=lambda value: record_fits(value, fields, parts.required),
            is_named=True,
        )
        self._named[id(node)] = record
        for key, schema in parts.fields.items():
            fields.append(self._field(key, schema, parts, path, depth))
            if len({each.name for each in fields}) < len(fields):
                at, fix = _join(path, key), "Give one of them another name or alias."
                raise self._error(at, "has the name of another field in Avro", fix)
        schema = {"type": "record", "name": name, "fields": [each.schema for each in fields]}
        return replace(record, schema=schema)

    def _field(self, key: str, schema: Any, parts: ObjectParts, path: str, depth: int) -> AvroField:
        field_type = self.map(schema, _join(path, key), depth + 1)
        is_required = key in parts.required
        field = AvroField(key, avro_name(key), field_type, schema, is_required=is_required)
        if field.null_has_two_meanings:
            fix = "Make it required, or let its default be None."
            raise self._error(_join(path, key), "may be absent or null, which are one in Avro", fix)
        return field


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _read_array(source: AvroReader, item: AvroType) -> Json:
    values: list[Json] = []
    with source.nested():
        for _ in source.blocks():
            source.count_value()
            values.append(item.read(source))
    return values


def _read_map(source: AvroReader, of_values: AvroType) -> Json:
    values: dict[str, Json] = {}
    with source.nested():
        for _ in source.blocks():
            source.count_value()
            key = source.text()
            values[key] = of_values.read(source)
    return values
