"""
Generated types and values of them: what pydantic documents as field types, nested at random.

A `Kind` is an annotation with a strategy for values, right ones and such as only an assignment
without validation or `model_construct` can leave in a model.
"""

import re
import string
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from pydantic import (
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    HttpUrl,
    Json,
    NaiveDatetime,
    PlainSerializer,
    PostgresDsn,
    RootModel,
    SecretStr,
    StringConstraints,
    computed_field,
    create_model,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from saga_engine import Secret


@dataclass(frozen=True)
class TypeCase:
    """A type, and values of it."""

    annotation: Any
    values: st.SearchStrategy[Any]


class Word(StrEnum):
    RED = "red"
    BLUE = "1"


class Number(IntEnum):
    ONE = 1
    TWO = 2


class Mixed(Enum):
    TEXT = "1"
    WHOLE = 1
    PART = 1.5
    PAIR = (1, 2)


class Pair(NamedTuple):
    left: int
    right: str = ""


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: float = 1.0


class Sub(Cat):
    more: str = "x"


TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "",
        "1",
        "1.0",
        "true",
        "null",
        "2026-01-01",
        "NaN",
        "\0",
        "\ud800",
        "é\u0301",
        " a ",
        "A" * 40,
    ]
)
INTS = (
    st.integers(-5, 5) | st.integers(-(2**65), 2**65) | st.sampled_from([2**53 + 1, 2**63, 2**64])
)
FLOATS = st.floats() | st.sampled_from([0.0, -0.0, 1.0, 1e16, 1e22, 1e300, 5e-324, 1e-7, 2.0**63])
ZONES = st.sampled_from([None, UTC, ZoneInfo("Europe/Berlin"), timezone(timedelta(minutes=-90))])
DATETIMES = st.datetimes(timezones=ZONES, allow_imaginary=True)
SCALES = st.sampled_from([Decimal("1.50"), Decimal("-0"), Decimal("1E+40")])
DECIMALS = st.decimals().filter(lambda number: not number.is_snan()) | SCALES
URLS = st.sampled_from(["http://a.b/", "https://user:p@a.b:1/c?d=e#f", "http://xn--bcher-kva.de/"])
TIMEDELTAS = st.timedeltas() | st.just(timedelta(microseconds=-1))

PLAIN = [
    TypeCase(bool, st.booleans()),
    TypeCase(int, INTS | st.just(Number.TWO)),
    TypeCase(float, FLOATS | INTS),
    TypeCase(str, TEXTS | st.sampled_from(Word)),
    TypeCase(None, st.none()),
]
HASHABLE = [
    *PLAIN,
    TypeCase(bytes, st.binary(max_size=6)),
    TypeCase(Decimal, DECIMALS),
    TypeCase(datetime, DATETIMES),
    TypeCase(NaiveDatetime, st.datetimes()),
    TypeCase(AwareDatetime, DATETIMES),
    TypeCase(date, st.dates() | DATETIMES),
    TypeCase(time, st.times(timezones=st.sampled_from([None, UTC]))),
    TypeCase(timedelta, TIMEDELTAS),
    TypeCase(UUID, st.uuids()),
    TypeCase(Word, st.sampled_from(Word)),
    TypeCase(Number, st.sampled_from(Number) | st.just(1)),
    TypeCase(Mixed, st.sampled_from(Mixed)),
    TypeCase(Literal["a", 1, True], st.sampled_from(["a", 1, True])),
    TypeCase(Literal["a", "1"], st.sampled_from(["a", "1"])),
    TypeCase(Path, st.sampled_from([Path("/a/b"), Path(), Path("a\ud800")])),
    TypeCase(PurePosixPath, st.just(PurePosixPath("x/y"))),
    TypeCase(IPv4Address, st.ip_addresses(v=4)),
    TypeCase(IPv6Address, st.ip_addresses(v=6) | st.just(IPv6Address("fe80::1%eth0"))),
    TypeCase(IPv4Network, st.just(IPv4Network("192.0.2.0/24"))),
    TypeCase(IPv6Network, st.just(IPv6Network("2001:db8::/32"))),
    TypeCase(IPv4Interface, st.just(IPv4Interface("192.0.2.1/24"))),
    TypeCase(IPv6Interface, st.just(IPv6Interface("2001:db8::1/32"))),
    TypeCase(AnyUrl, URLS.map(AnyUrl)),
    TypeCase(HttpUrl, URLS.map(HttpUrl)),
    TypeCase(PostgresDsn, st.just(PostgresDsn("postgresql://u:p@h:1/d"))),
    TypeCase(re.Pattern, st.sampled_from([re.compile("a+"), re.compile("b", re.IGNORECASE)])),
    TypeCase(complex, st.complex_numbers()),
    TypeCase(Fraction, st.fractions()),
    TypeCase(ByteSize, st.integers(0, 2**40).map(ByteSize)),
    TypeCase(Base64Bytes, st.binary(max_size=6)),
    TypeCase(Secret[str], TEXTS.map(Secret)),
    TypeCase(Secret[Decimal], DECIMALS.map(Secret)),
    TypeCase(SecretStr, TEXTS.map(SecretStr)),
    TypeCase(Annotated[int, Field(gt=0, le=100)], INTS),
    TypeCase(Annotated[Decimal, Field(max_digits=5, decimal_places=2)], DECIMALS),
    TypeCase(Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)], TEXTS),
    TypeCase(Annotated[str, StringConstraints(min_length=1, max_length=5)], TEXTS),
    TypeCase(Annotated[float, Field(allow_inf_nan=False)], FLOATS),
    TypeCase(Annotated[float, PlainSerializer(lambda number: round(number, 1))], FLOATS),
    TypeCase(Annotated[str, PlainSerializer(lambda text: text.upper())], TEXTS),
    TypeCase(int, st.sampled_from(["1", 1.0, None, True])),  # left there by an assignment
]
OTHER = [
    TypeCase(Pair, st.builds(Pair, st.integers(0, 9), TEXTS) | st.just((1, "x"))),
    TypeCase(Cat, st.builds(Cat, lives=st.integers(0, 9)) | st.just(Sub())),
    TypeCase(
        Annotated[Cat | Dog, Field(discriminator="kind")], st.sampled_from([Cat(), Dog(), Sub()])
    ),
    TypeCase(Cat | Dog, st.sampled_from([Cat(), Dog(), Sub()])),
    TypeCase(
        Any, st.recursive(TEXTS | INTS | FLOATS | st.none(), lambda e: st.lists(e, max_size=3))
    ),
    TypeCase(
        Any, st.sampled_from([(1, 2), {1: 2}, {1, 2}, Cat(), date(2026, 1, 1), Decimal(1), b"x"])
    ),
    TypeCase(dict, st.dictionaries(TEXTS | st.integers(), INTS, max_size=3)),
    TypeCase(Counter[str], st.just(Counter("aab"))),
    TypeCase(Json[list[int]], st.lists(st.integers(0, 9), max_size=3)),
    TypeCase(Iterable[int], st.just([1, 2])),
    TypeCase(Callable[[], int], st.just(int)),
    TypeCase(type[int], st.just(bool)),
]

_numbers = count()
_NAMES = st.lists(
    st.text(string.ascii_lowercase, min_size=1, max_size=3).map(lambda name: f"{name}_f"),
    min_size=1,
    max_size=4,
    unique=True,
)


def type_cases() -> st.SearchStrategy[TypeCase]:
    """Kinds nested in containers, unions and records."""
    leaves = st.sampled_from(HASHABLE) | st.sampled_from(OTHER) | st.sampled_from(PLAIN)
    return st.recursive(leaves, _containers, max_leaves=4)


def model_cases() -> st.SearchStrategy[TypeCase]:
    """Models of such fields."""
    return _records(type_cases())


def _of(generic: Any, *arguments: Any) -> Any:
    """The generic type with arguments that are known only here."""
    return generic[arguments]


def _containers(inner: st.SearchStrategy[TypeCase]) -> st.SearchStrategy[TypeCase]:
    return st.one_of(
        inner.map(lambda k: TypeCase(_of(list, k.annotation), st.lists(k.values, max_size=3))),
        inner.map(
            lambda k: TypeCase(_of(deque, k.annotation), st.lists(k.values, max_size=3).map(deque))
        ),
        inner.map(lambda k: TypeCase(_of(tuple, k.annotation, ...), st.lists(k.values).map(tuple))),
        inner.map(lambda k: TypeCase(_of(Sequence, k.annotation), st.lists(k.values, max_size=3))),
        inner.map(_optional),
        st.sampled_from(HASHABLE).map(_set),
        st.sampled_from(HASHABLE).map(_frozen),
        st.tuples(inner, inner).map(_pair),
        st.tuples(inner, inner).map(_union),
        st.tuples(st.sampled_from(HASHABLE), inner).flatmap(_mapping),
        _records(inner),
    )


def _optional(k: TypeCase) -> TypeCase:
    return TypeCase(Optional[k.annotation], st.none() | k.values)  # noqa: UP045 - known only here


def _set(k: TypeCase) -> TypeCase:
    return TypeCase(_of(set, k.annotation), st.sets(k.values, max_size=4))


def _frozen(k: TypeCase) -> TypeCase:
    return TypeCase(_of(frozenset, k.annotation), st.frozensets(k.values, max_size=4))


def _pair(two: tuple[TypeCase, TypeCase]) -> TypeCase:
    one, other = two
    return TypeCase(
        _of(tuple, one.annotation, other.annotation), st.tuples(one.values, other.values)
    )


def _union(two: tuple[TypeCase, TypeCase]) -> TypeCase:
    one, other = two
    both = _of(Union, one.annotation, other.annotation)
    return TypeCase(both, one.values | other.values)


def _mapping(two: tuple[TypeCase, TypeCase]) -> st.SearchStrategy[TypeCase]:
    key, value = two
    made = st.dictionaries(key.values, value.values, max_size=3)
    return st.sampled_from(
        [
            TypeCase(_of(dict, key.annotation, value.annotation), made),
            TypeCase(
                _of(dict, str, value.annotation), st.dictionaries(TEXTS, value.values, max_size=3)
            ),
            TypeCase(_of(Mapping, key.annotation, value.annotation), made),
            TypeCase(_of(OrderedDict, key.annotation, value.annotation), made.map(OrderedDict)),
            TypeCase(
                _of(defaultdict, key.annotation, list[int]),
                made.map(lambda found: defaultdict(list, {name: [1] for name in found})),
            ),
        ]
    )


def _records(inner: st.SearchStrategy[TypeCase]) -> st.SearchStrategy[TypeCase]:
    return st.one_of(
        *(
            _fields(inner).flatmap(make)
            for make in (_model, _model, _model, _typed_dict, _dataclass, _named_tuple)
        ),
        inner.map(_root_model),
    )


def _fields(inner: st.SearchStrategy[TypeCase]) -> st.SearchStrategy[dict[str, TypeCase]]:
    return _NAMES.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, inner)))


CONFIGS: tuple[ConfigDict, ...] = (
    ConfigDict(),
    ConfigDict(),
    ConfigDict(alias_generator=to_camel),
    ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=False),
    ConfigDict(strict=True),
    ConfigDict(extra="forbid"),
    ConfigDict(extra="allow", populate_by_name=True),
    ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"),
    ConfigDict(ser_json_bytes="hex", val_json_bytes="hex"),
    ConfigDict(ser_json_timedelta="float", ser_json_inf_nan="constants"),
    ConfigDict(ser_json_temporal="milliseconds", val_temporal_unit="milliseconds"),
    ConfigDict(use_enum_values=True, str_strip_whitespace=True),
    ConfigDict(coerce_numbers_to_str=True, frozen=True),
)
SHAPES = ("plain", "plain", "plain", "alias", "written", "read", "default", "exclude", "computed")


def _model(fields: dict[str, TypeCase]) -> st.SearchStrategy[TypeCase]:
    @st.composite
    def made(draw: st.DrawFn) -> TypeCase:
        declared: dict[str, Any] = {}
        for name, each in fields.items():
            declared[name] = _field_definition(draw(st.sampled_from(SHAPES)), name, each, draw)
        config = draw(st.sampled_from(CONFIGS))
        plain = create_model(f"Model{next(_numbers)}", __config__=config, **declared)
        model: Any = _computing(plain) if draw(st.integers(0, 9)) == 0 else plain
        values = st.fixed_dictionaries({name: each.values for name, each in fields.items()})
        return TypeCase(model, values.map(lambda given: model.model_construct(**given)))

    return made()


def _field_definition(shape: str, name: str, kind: TypeCase, draw: st.DrawFn) -> Any:
    match shape:
        case "alias":
            return (kind.annotation, Field(alias=f"{name}-alias"))
        case "written":
            return (kind.annotation, Field(serialization_alias="written"))
        case "read":
            return (kind.annotation, Field(validation_alias=f"{name}-read"))
        case "default":
            return (kind.annotation, draw(kind.values))
        case "exclude":
            return (kind.annotation, Field(draw(kind.values), exclude=True))
        case _:
            return (kind.annotation, ...)


def _computing(model: type[BaseModel]) -> type[BaseModel]:
    def twice(_: BaseModel) -> int:
        return 2

    inner = {"twice": computed_field(return_type=int)(property(twice))}
    return type(f"{model.__name__}C", (model,), inner | {"__module__": __name__})


def _typed_dict(fields: dict[str, TypeCase]) -> st.SearchStrategy[TypeCase]:
    made = cast("Any", TypedDict)(
        f"Typed{next(_numbers)}", {n: k.annotation for n, k in fields.items()}
    )
    return st.just(TypeCase(made, st.fixed_dictionaries({n: k.values for n, k in fields.items()})))


def _dataclass(fields: dict[str, TypeCase]) -> st.SearchStrategy[TypeCase]:
    made: Any = make_dataclass(
        f"Data{next(_numbers)}", [(name, kind.annotation) for name, kind in fields.items()]
    )
    values = st.builds(made, **{name: kind.values for name, kind in fields.items()})
    checked = pydantic_dataclass(
        make_dataclass(
            f"Data{next(_numbers)}", [(name, kind.annotation) for name, kind in fields.items()]
        )
    )
    return st.sampled_from(
        [TypeCase(made, values), TypeCase(checked, values.map(lambda d: _construct(checked, d)))]
    )


def _construct(kind: Any, values: Any) -> Any:
    made = object.__new__(kind)
    made.__dict__.update(vars(values))
    return made


def _named_tuple(fields: dict[str, TypeCase]) -> st.SearchStrategy[TypeCase]:
    made = cast("Any", NamedTuple)(
        f"Named{next(_numbers)}", [(name, kind.annotation) for name, kind in fields.items()]
    )
    return st.just(
        TypeCase(made, st.builds(made, **{n: kind.values for n, kind in fields.items()}))
    )


def _root_model(inner: TypeCase) -> TypeCase:
    model = _of(RootModel, inner.annotation)
    return TypeCase(model, inner.values.map(lambda value: model.model_construct(value)))  # noqa: PLW0108
