"""Single values in Avro: which type a text or a number has, and conversions of its values."""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from saga_engine.schemas.schema_side import Node
from saga_engine.vocabulary import Json


@dataclass(slots=True, kw_only=True, eq=False)
class AvroType:
    """
    A type in Avro.

    Args:
        schema: the Avro schema.
        json_types: the classes of its values in JSON.
        read_as: the class of what fastavro reads.
        encode: turns JSON into what fastavro writes.
        decode: turns what fastavro reads into JSON.
        fits: whether a JSON value of its classes is one of its values; records and enums differ.
        is_named: whether it is a record or an enum.
        members: of a union, in the order of Avro.
    """

    schema: Any
    json_types: frozenset[type]
    read_as: type
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Json]
    fits: Callable[[Any], bool] = lambda _: True
    is_named: bool = False
    members: Sequence["AvroType"] = ()

    @property
    def kind(self) -> str:
        """What no two members of a union have in common: the name, or the type without one."""
        schema = self.schema
        kind: str = schema if isinstance(schema, str) else schema.get("name", schema["type"])
        return kind

    def accepts(self, value: Json) -> bool:
        """Whether it is the type of a JSON value, among the members of a union."""
        return type(value) in self.json_types and self.fits(value)


def _same(value: Any) -> Any:
    return value


def _simple(
    schema: Any,
    *types: type,
    read_as: type | None = None,
    encode: Callable[[Any], Any] = _same,
    decode: Callable[[Any], Json] = _same,
) -> AvroType:
    return AvroType(
        schema=schema,
        json_types=frozenset(types),
        read_as=read_as or types[0],
        encode=encode,
        decode=decode,
    )


def _write_time(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


def _logical(base: str, logical_type: str) -> dict[str, Any]:
    return {"type": base, "logicalType": logical_type}


NULL = _simple("null", type(None))
BOOLEAN = _simple("boolean", bool)
LONG = _simple("long", int)
DOUBLE = _simple("double", float, int, encode=float)
TEXT = _simple("string", str)
UUID = _simple(_logical("string", "uuid"), str, read_as=uuid.UUID, decode=str)
DATE = _simple(
    _logical("int", "date"),
    str,
    read_as=date,
    encode=date.fromisoformat,
    decode=date.isoformat,
)
INSTANT = _simple(
    _logical("long", "timestamp-micros"),
    str,
    read_as=datetime,
    encode=lambda text: datetime.fromisoformat(text).astimezone(UTC),
    decode=_write_time,
)
LOCAL_TIME = _simple(
    _logical("long", "local-timestamp-micros"),
    str,
    read_as=datetime,
    encode=datetime.fromisoformat,
    decode=_write_time,
)
ANY_JSON = _simple(
    "string",
    *(str, int, float, bool, list, dict, type(None)),
    encode=json.dumps,
    decode=json.loads,
)
"""A text that contains JSON: Avro has no type for it."""


def text_type(node: Node) -> AvroType:
    """
    Choose the type of a text.

    A decimal number without a declared number of digits, a time without a declared zone, and every
    other format remain texts: Avro's types would not take all their values.
    """
    text_format = node.get("format", "")
    if text_format.startswith("uuid"):
        return UUID
    if text_format == "date":
        return DATE
    if text_format == "date-time" and "timezone" in node:
        return INSTANT if node["timezone"] == "aware" else LOCAL_TIME
    if text_format == "decimal" and {"maxDigits", "decimalPlaces"} <= node.keys():
        return _decimal(node["maxDigits"], node["decimalPlaces"])
    return TEXT


def _decimal(digits: int, places: int) -> AvroType:
    schema = _logical("bytes", "decimal") | {"precision": digits, "scale": places}
    return _simple(schema, str, read_as=Decimal, encode=Decimal, decode="{:f}".format)
