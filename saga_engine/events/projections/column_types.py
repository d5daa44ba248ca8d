"""
Which values a column takes from a declared change, and as which type they travel to PostgreSQL.

A value is written unchanged or refused with a sentence. The types are those whose values PostgreSQL
stores as Python has them; a SQL handler can write every other type.
"""

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic_core import PydanticSerializationError, from_json, to_json
from sqlalchemy import types
from sqlalchemy.dialects import postgresql

from saga_engine.payload.payload import is_storable

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy types it as untyped


_MAX_EXPONENT = 131_071
_MAX_SCALE = 16_383
"""The digits of a NUMERIC before and after the point (PostgreSQL manual, 8.1.2)."""


_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""U+0000 as JSON is written; an even number of backslashes before it are characters themselves."""

_SINGLE = struct.Struct("f")
"""A float of 32 bits, as REAL is."""

_INTEGER_BITS = {"smallint": 16, "integer": 32, "bigint": 64}


_INFINITE = "takes no least and no greatest date of Python, which PostgreSQL stores as infinity"

_INFINITE_TIMES = (datetime.combine(date.min, time.min), datetime.combine(date.max, time.max))
_INFINITE_YEARS = (MINYEAR, MAXYEAR)

_EXACT_COLLATIONS = (None, "C", "POSIX", "ucs_basic")
"""Other collations may be nondeterministic, which their names do not say."""


class ValueRefused(ValueError):
    """
    A column cannot hold a value; the text says what it takes.

    Args:
        takes: what the column takes.
        got: what it got, when that is not clear from the type of the value.
        fix: what the author does about it.
    """

    def __init__(
        self, takes: str, *, got: str = "", fix: str = "Convert the value in the function."
    ) -> None:
        super().__init__(takes)
        self.got = got
        self.fix = fix


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnType:
    """
    The type of one column.

    Args:
        array_type: PostgreSQL's type of a parameter that has one value for each row.
        cast: the type that each value is cast to; empty where an assignment does it.
        accept: returns a value as it is written. It raises ValueRefused for one that the column
            cannot hold.
        can_add: whether `add` works on it: its sums do not depend on their order.
        key_problem: why it cannot be part of a primary key: two of its values are one for Python or
            for PostgreSQL, and two for the other. Empty: it can.
    """

    array_type: str
    cast: str
    accept: Callable[[Any], Any]
    can_add: bool = False
    key_problem: str = ""


def column_type(sql_type: Any) -> ColumnType | None:
    """The type of a column by its SQLAlchemy type; None when a declared change cannot write it."""
    for kinds, build in _BUILDERS:
        if isinstance(sql_type, kinds):
            return build(sql_type)
    return None


def _integer(sql_type: types.Integer) -> ColumnType:
    array_type = sql_type.compile(dialect=_DIALECT).lower()
    bits = _INTEGER_BITS.get(array_type, 64)
    limit = 2 ** (bits - 1)

    def accept(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueRefused("takes an int")
        if not -limit <= value < limit:
            raise ValueRefused(
                f"takes an int of {bits} bits",
                got="an int that is larger",
                fix="Bound it in the function, or declare Numeric.",
            )
        return value

    return ColumnType(array_type=array_type, cast="", accept=accept, can_add=True)


def _numeric(sql_type: types.Numeric[Any]) -> ColumnType:
    scale = sql_type.scale
    if sql_type.precision is not None and scale is None:
        scale = 0  # NUMERIC(10) has none
    whole_digits = None if sql_type.precision is None else sql_type.precision - (scale or 0)

    def accept(value: Any) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise ValueRefused("takes a Decimal or an int")
        number = Decimal(value)
        exponent = number.as_tuple().exponent
        if not isinstance(exponent, int):
            raise ValueRefused("takes a finite number")
        if number.adjusted() > _MAX_EXPONENT or exponent < -_MAX_SCALE:
            raise ValueRefused("takes a number that PostgreSQL can store")
        if scale is not None and -exponent > scale:
            # PostgreSQL would round it, and the sum of rounded numbers depends on their order.
            raise ValueRefused(f"takes at most {scale} digits after the point")
        if whole_digits is not None and number and number.adjusted() >= whole_digits:
            raise ValueRefused(f"takes at most {whole_digits} digits before the point")
        return number

    return ColumnType(array_type="numeric", cast="", accept=accept, can_add=True)


def _float(sql_type: Any) -> ColumnType:
    declared = sql_type.compile(dialect=_DIALECT)
    is_single = declared == "REAL" or (declared != "FLOAT" and (sql_type.precision or 53) < 25)

    def accept(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueRefused("takes a float")
        number = float(value)
        if isinstance(value, int) and number != value:
            raise ValueRefused("takes a float, which an int of this size would not be unchanged")
        if math.isnan(number):
            raise ValueRefused("takes a number, not NaN")
        if is_single and not _is_single(number):
            raise ValueRefused("takes a float of 32 bits, which this one would not be unchanged")
        return number

    return ColumnType(array_type="double precision", cast="", accept=accept)


def _is_single(number: float) -> bool:
    try:
        return bool(_SINGLE.unpack(_SINGLE.pack(number))[0] == number)
    except OverflowError:
        return False


def _boolean(_type: Any) -> ColumnType:
    return ColumnType(array_type="boolean", cast="", accept=_instance_of(bool, "takes a bool"))


def _text(sql_type: types.String) -> ColumnType:
    def accept(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueRefused("takes a str")
        if not (value.isascii() and "\0" not in value) and not is_storable(value):
            raise ValueRefused("takes text without U+0000 and without lone surrogates")
        if sql_type.length is not None and len(value) > sql_type.length:
            raise ValueRefused(f"takes at most {sql_type.length} characters")
        return value if type(value) is str else str(value)

    collation = getattr(sql_type, "collation", None)
    problem = "" if collation in _EXACT_COLLATIONS else "has a collation that may equate two texts"
    # As text, because a cast to varchar(10) cuts what an assignment refuses.
    return ColumnType(array_type="text", cast="", accept=accept, key_problem=problem)


def _enum(sql_type: types.Enum) -> ColumnType:
    allowed = frozenset(sql_type.enums)

    def accept(value: Any) -> str:
        if not isinstance(value, str) or str(value) not in allowed:
            raise ValueRefused(f"takes one of {', '.join(sorted(allowed))}")
        return str(value)

    cast = sql_type.compile(dialect=_DIALECT) if sql_type.native_enum else ""
    return ColumnType(array_type="text", cast=cast, accept=accept)


def _date_time(sql_type: types.DateTime) -> ColumnType | None:
    if not _is_exact(sql_type):
        return None
    with_zone = bool(sql_type.timezone)

    def accept(value: Any) -> datetime:
        if not isinstance(value, datetime) or (value.tzinfo is not None) is not with_zone:
            raise ValueRefused(f"takes a datetime {'with' if with_zone else 'without'} a time zone")
        # Of nearly all values the year says enough, and it is fast.
        if value.year in _INFINITE_YEARS and value.replace(tzinfo=None) in _INFINITE_TIMES:
            raise ValueRefused(_INFINITE)
        return value

    return ColumnType(
        array_type="timestamptz" if with_zone else "timestamp", cast="", accept=accept
    )


def _date(_type: Any) -> ColumnType:
    def accept(value: Any) -> date:
        if not isinstance(value, date) or isinstance(value, datetime):
            raise ValueRefused("takes a date")
        if value in (date.min, date.max):
            raise ValueRefused(_INFINITE)
        return value

    return ColumnType(array_type="date", cast="", accept=accept)


def _time(sql_type: types.Time) -> ColumnType | None:
    if not _is_exact(sql_type):
        return None
    with_zone = bool(sql_type.timezone)

    def accept(value: Any) -> time:
        if not isinstance(value, time) or (value.tzinfo is not None) is not with_zone:
            raise ValueRefused(f"takes a time {'with' if with_zone else 'without'} a time zone")
        return value

    # Equal times of two zones are one key in Python and two in PostgreSQL.
    problem = "has a time zone" if with_zone else ""
    return ColumnType(
        array_type="timetz" if with_zone else "time", cast="", accept=accept, key_problem=problem
    )


def _is_exact(sql_type: Any) -> bool:
    """Whether a type of times has the microseconds that Python has; PostgreSQL would round them."""
    precisions = {getattr(sql_type, "precision", None), getattr(sql_type, "second_precision", None)}
    return getattr(sql_type, "fields", None) is None and precisions <= {None, 6}


def _interval(sql_type: Any) -> ColumnType | None:
    if not _is_exact(sql_type):
        return None
    # Not for `add`: PostgreSQL keeps days and hours apart, so 24 hours and a day differ.
    return ColumnType(
        array_type="interval", cast="", accept=_instance_of(timedelta, "takes a timedelta")
    )


def _uuid(_type: Any) -> ColumnType:
    def accept(value: Any) -> UUID:
        if isinstance(value, UUID):
            return value
        try:
            return UUID(value)
        except (AttributeError, TypeError, ValueError):
            raise ValueRefused("takes a UUID") from None

    return ColumnType(array_type="uuid", cast="", accept=accept)


def _binary(_type: Any) -> ColumnType:
    return ColumnType(array_type="bytea", cast="", accept=_instance_of(bytes, "takes bytes"))


def _json(sql_type: types.JSON) -> ColumnType:
    cast = sql_type.compile(dialect=_DIALECT).lower()

    def accept(value: Any) -> str:
        try:
            body = to_json(value, inf_nan_mode="constants")
            is_altered = from_json(body, allow_inf_nan=False) != value
        except (PydanticSerializationError, UnicodeEncodeError, ValueError):
            raise ValueRefused("takes what can be written as JSON") from None
        if is_altered:
            raise ValueRefused(
                "takes JSON: dicts whose keys are texts, lists, texts, numbers, bools and None"
            )
        if cast == "jsonb" and _ESCAPED_NUL.search(body):
            raise ValueRefused("takes JSON without U+0000")
        return body.decode()

    return ColumnType(array_type="text", cast=cast, accept=accept, key_problem="is JSON")


def _instance_of(python_type: type, expected: str) -> Callable[[Any], Any]:
    def accept(value: Any) -> Any:
        if not isinstance(value, python_type):
            raise ValueRefused(expected)
        return value

    return accept


_BUILDERS: tuple[tuple[Any, Callable[[Any], ColumnType | None]], ...] = (
    # Keys that differ in Python are equal there; CHAR also adds spaces.
    (postgresql.CITEXT | types.CHAR | types.NCHAR, lambda _type: None),
    (types.Boolean, _boolean),
    (types.Integer, _integer),
    (types.Float, _float),
    (types.Numeric, _numeric),
    (types.Enum, _enum),
    (types.String, _text),
    (types.DateTime, _date_time),
    (types.Date, _date),
    (types.Time, _time),
    (types.Interval | postgresql.INTERVAL, _interval),
    (types.Uuid, _uuid),
    (types.LargeBinary, _binary),
    (types.JSON, _json),
)
"""The first that fits is taken, so a type comes before those that it is derived from."""
