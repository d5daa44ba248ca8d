"""Single values in Avro: which type a text or a number has, and conversions of its values."""

import json
import math
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from saga_engine.schemas.avro_reader import AvroReader, MalformedAvro
from saga_engine.schemas.schema_side import Node
from saga_engine.vocabulary import Json


class DoesNotFit(ValueError):
    """
    A value cannot be written with its type.

    Args:
        problem: what follows the name of the field in a sentence; it quotes no value.
        path: the field, from the top.
    """

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path


@dataclass(slots=True, kw_only=True, eq=False)
class AvroType:
    """
    A type in Avro.

    Args:
        schema: the Avro schema.
        json_types: the classes of its values in JSON.
        encode: turns JSON into what fastavro writes.
        read: reads JSON from the bytes of a value.
        fits: whether a JSON value of its classes is one of its values; records and enums differ.
        is_named: whether it is a record or an enum.
        members: of a union, in the order of Avro.
    """

    schema: Any
    json_types: frozenset[type]
    encode: Callable[[Any], Any]
    read: Callable[[AvroReader], Json]
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


def _simple(
    schema: Any,
    *types: type,
    read: Callable[[AvroReader], Json],
    encode: Callable[[Any], Any] | None = None,
) -> AvroType:
    return AvroType(
        schema=schema, json_types=frozenset(types), read=read, encode=encode or _only(*types)
    )


def _logical(base: str, logical_type: str) -> dict[str, Any]:
    return {"type": base, "logicalType": logical_type}


def _only(*types: type) -> Callable[[Any], Any]:
    """Refuse values of other classes: fastavro would write `true` as 1, and anything as null."""

    def require(value: Any) -> Any:
        if type(value) not in types:
            raise DoesNotFit(f"is {type(value).__name__} in the place of {types[0].__name__}")
        return value

    return require


_a_number, _an_integer, _a_text = _only(float, int), _only(int), _only(str)
a_list = _only(list)


def _long(value: Any) -> int:
    number: int = _an_integer(value)
    if not -(2**63) <= number < 2**63:
        raise DoesNotFit("has more than 64 bits with its sign")
    return number


def _exact_float(number: float) -> float:
    """A float that equals a number; an integer of JSON may have more digits."""
    found = float(_a_number(number))
    if found != number:
        raise DoesNotFit("is an integer that a float would alter")
    return found


def _finite(number: float) -> float:
    """JSON has no NaN and no infinity."""
    if not math.isfinite(number):
        raise MalformedAvro("a number is not finite")
    return number


def _write_time(text: str) -> datetime:
    if _MORE_THAN_MICROSECONDS.search(text):
        raise DoesNotFit("has more digits than microseconds have")
    return datetime.fromisoformat(text)


def _read_time(epoch: datetime, microseconds: int) -> str:
    time = epoch + timedelta(microseconds=microseconds)
    return time.isoformat().replace("+00:00", "Z")


def _read_json(text: str) -> Json:
    """Read a text that contains JSON, as strict as the body of a message is read."""
    value: Json = json.loads(
        text,
        parse_constant=lambda _: _finite(math.nan),
        parse_float=lambda each: _finite(float(each)),
    )
    return value


_MORE_THAN_MICROSECONDS = re.compile(r"[.,][0-9]{7}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL_EPOCH = _EPOCH.replace(tzinfo=None)

NULL = _simple("null", type(None), read=lambda _: None)
BOOLEAN = _simple("boolean", bool, read=AvroReader.boolean)
LONG = _simple("long", int, read=AvroReader.integer, encode=_long)
DOUBLE = _simple(
    "double", float, int, read=lambda source: _finite(source.double()), encode=_exact_float
)
TEXT = _simple("string", str, read=AvroReader.text)
UUID = _simple(_logical("string", "uuid"), str, read=lambda source: str(uuid.UUID(source.text())))
DATE = _simple(
    _logical("int", "date"),
    str,
    read=lambda source: date.fromordinal(_EPOCH.toordinal() + source.integer()).isoformat(),
    encode=date.fromisoformat,
)
INSTANT = _simple(
    _logical("long", "timestamp-micros"),
    str,
    read=lambda source: _read_time(_EPOCH, source.integer()),
    encode=lambda text: _write_time(text).astimezone(UTC),
)
LOCAL_TIME = _simple(
    _logical("long", "local-timestamp-micros"),
    str,
    read=lambda source: _read_time(_LOCAL_EPOCH, source.integer()),
    encode=_write_time,
)
ANY_JSON = _simple(
    "string",
    *(str, int, float, bool, list, dict, type(None)),
    read=lambda source: _read_json(source.text()),
    encode=json.dumps,
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
    digits, places = node.get("maxDigits", 0), node.get("decimalPlaces", -1)
    if text_format == "decimal" and digits and 0 <= places <= digits:
        return _decimal(digits, places)
    return TEXT


def _decimal(digits: int, places: int) -> AvroType:
    schema = _logical("bytes", "decimal") | {"precision": digits, "scale": places}
    limit = 10**digits
    # With a byte for the sign; a writer may have put more before it, within reason.
    most_bytes = limit.bit_length() // 8 + 9

    def read(source: AvroReader) -> str:
        content = source.content()
        number = int.from_bytes(content[:most_bytes], "big", signed=True)
        if len(content) > most_bytes or abs(number) >= limit:
            raise MalformedAvro("a decimal number has more digits than its schema allows")
        sign = "-" if number < 0 else ""
        text = str(abs(number)).zfill(places + 1)
        return f"{sign}{text[:-places]}.{text[-places:]}" if places else f"{sign}{text}"

    def encode(text: Any) -> Decimal:
        number = Decimal(_a_text(text))
        if abs(number) >= 10 ** (digits - places):
            raise DoesNotFit("has more digits than its schema allows")
        return number

    return _simple(schema, str, read=read, encode=encode)
