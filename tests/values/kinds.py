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
class Kind:
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
MOMENTS = st.datetimes(timezones=ZONES, allow_imaginary=True)
SCALES = st.sampled_from([Decimal("1.50"), Decimal("-0"), Decimal("1E+40")])
DECIMALS = st.decimals().filter(lambda number: not number.is_snan()) | SCALES
URLS = st.sampled_from(["http://a.b/", "https://user:p@a.b:1/c?d=e#f", "http://xn--bcher-kva.de/"])
SPANS = st.timedeltas() | st.just(timedelta(microseconds=-1))

PLAIN = [
    Kind(bool, st.booleans()),
    Kind(int, INTS | st.just(Number.TWO)),
    Kind(float, FLOATS | INTS),
    Kind(str, TEXTS | st.sampled_from(Word)),
    Kind(None, st.none()),
]
HASHABLE = [
    *PLAIN,
    Kind(bytes, st.binary(max_size=6)),
    Kind(Decimal, DECIMALS),
    Kind(datetime, MOMENTS),
    Kind(NaiveDatetime, st.datetimes()),
    Kind(AwareDatetime, MOMENTS),
    Kind(date, st.dates() | MOMENTS),
    Kind(time, st.times(timezones=st.sampled_from([None, UTC]))),
    Kind(timedelta, SPANS),
    Kind(UUID, st.uuids()),
    Kind(Word, st.sampled_from(Word)),
    Kind(Number, st.sampled_from(Number) | st.just(1)),
    Kind(Mixed, st.sampled_from(Mixed)),
    Kind(Literal["a", 1, True], st.sampled_from(["a", 1, True])),
    Kind(Literal["a", "1"], st.sampled_from(["a", "1"])),
    Kind(Path, st.sampled_from([Path("/a/b"), Path(), Path("a\ud800")])),
    Kind(PurePosixPath, st.just(PurePosixPath("x/y"))),
    Kind(IPv4Address, st.ip_addresses(v=4)),
    Kind(IPv6Address, st.ip_addresses(v=6) | st.just(IPv6Address("fe80::1%eth0"))),
    Kind(IPv4Network, st.just(IPv4Network("192.0.2.0/24"))),
    Kind(IPv6Network, st.just(IPv6Network("2001:db8::/32"))),
    Kind(IPv4Interface, st.just(IPv4Interface("192.0.2.1/24"))),
    Kind(IPv6Interface, st.just(IPv6Interface("2001:db8::1/32"))),
    Kind(AnyUrl, URLS.map(AnyUrl)),
    Kind(HttpUrl, URLS.map(HttpUrl)),
    Kind(PostgresDsn, st.just(PostgresDsn("postgresql://u:p@h:1/d"))),
    Kind(re.Pattern, st.sampled_from([re.compile("a+"), re.compile("b", re.IGNORECASE)])),
    Kind(complex, st.complex_numbers()),
    Kind(Fraction, st.fractions()),
    Kind(ByteSize, st.integers(0, 2**40).map(ByteSize)),
    Kind(Base64Bytes, st.binary(max_size=6)),
    Kind(Secret[str], TEXTS.map(Secret)),
    Kind(Secret[Decimal], DECIMALS.map(Secret)),
    Kind(SecretStr, TEXTS.map(SecretStr)),
    Kind(Annotated[int, Field(gt=0, le=100)], INTS),
    Kind(Annotated[Decimal, Field(max_digits=5, decimal_places=2)], DECIMALS),
    Kind(Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)], TEXTS),
    Kind(Annotated[str, StringConstraints(min_length=1, max_length=5)], TEXTS),
    Kind(Annotated[float, Field(allow_inf_nan=False)], FLOATS),
    Kind(Annotated[float, PlainSerializer(lambda number: round(number, 1))], FLOATS),
    Kind(Annotated[str, PlainSerializer(lambda text: text.upper())], TEXTS),
    Kind(int, st.sampled_from(["1", 1.0, None, True])),  # left there by an assignment
]
OTHER = [
    Kind(Pair, st.builds(Pair, st.integers(0, 9), TEXTS) | st.just((1, "x"))),
    Kind(Cat, st.builds(Cat, lives=st.integers(0, 9)) | st.just(Sub())),
    Kind(Annotated[Cat | Dog, Field(discriminator="kind")], st.sampled_from([Cat(), Dog(), Sub()])),
    Kind(Cat | Dog, st.sampled_from([Cat(), Dog(), Sub()])),
    Kind(Any, st.recursive(TEXTS | INTS | FLOATS | st.none(), lambda e: st.lists(e, max_size=3))),
    Kind(Any, st.sampled_from([(1, 2), {1: 2}, {1, 2}, Cat(), date(2026, 1, 1), Decimal(1), b"x"])),
    Kind(dict, st.dictionaries(TEXTS | st.integers(), INTS, max_size=3)),
    Kind(Counter[str], st.just(Counter("aab"))),
    Kind(Json[list[int]], st.lists(st.integers(0, 9), max_size=3)),
    Kind(Iterable[int], st.just([1, 2])),
    Kind(Callable[[], int], st.just(int)),
    Kind(type[int], st.just(bool)),
]

_numbers = count()
_NAMES = st.lists(
    st.text(string.ascii_lowercase, min_size=1, max_size=3).map(lambda name: f"{name}_f"),
    min_size=1,
    max_size=4,
    unique=True,
)


def kinds() -> st.SearchStrategy[Kind]:
    """Kinds nested in containers, unions and records."""
    leaves = st.sampled_from(HASHABLE) | st.sampled_from(OTHER) | st.sampled_from(PLAIN)
    return st.recursive(leaves, _around, max_leaves=4)


def models() -> st.SearchStrategy[Kind]:
    """Models of such fields."""
    return _records(kinds())


def _of(generic: Any, *arguments: Any) -> Any:
    """The generic type with arguments that are known only here."""
    return generic[arguments]


def _around(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    return st.one_of(
        inner.map(lambda k: Kind(_of(list, k.annotation), st.lists(k.values, max_size=3))),
        inner.map(
            lambda k: Kind(_of(deque, k.annotation), st.lists(k.values, max_size=3).map(deque))
        ),
        inner.map(lambda k: Kind(_of(tuple, k.annotation, ...), st.lists(k.values).map(tuple))),
        inner.map(lambda k: Kind(_of(Sequence, k.annotation), st.lists(k.values, max_size=3))),
        inner.map(_optional),
        st.sampled_from(HASHABLE).map(_set),
        st.sampled_from(HASHABLE).map(_frozen),
        st.tuples(inner, inner).map(_pair),
        st.tuples(inner, inner).map(_union),
        st.tuples(st.sampled_from(HASHABLE), inner).flatmap(_mapping),
        _records(inner),
    )


def _optional(k: Kind) -> Kind:
    return Kind(Optional[k.annotation], st.none() | k.values)  # noqa: UP045 - known only here


def _set(k: Kind) -> Kind:
    return Kind(_of(set, k.annotation), st.sets(k.values, max_size=4))


def _frozen(k: Kind) -> Kind:
    return Kind(_of(frozenset, k.annotation), st.frozensets(k.values, max_size=4))


def _pair(two: tuple[Kind, Kind]) -> Kind:
    one, other = two
    return Kind(_of(tuple, one.annotation, other.annotation), st.tuples(one.values, other.values))


def _union(two: tuple[Kind, Kind]) -> Kind:
    one, other = two
    both = _of(Union, one.annotation, other.annotation)
    return Kind(both, one.values | other.values)


def _mapping(two: tuple[Kind, Kind]) -> st.SearchStrategy[Kind]:
    key, value = two
    made = st.dictionaries(key.values, value.values, max_size=3)
    return st.sampled_from(
        [
            Kind(_of(dict, key.annotation, value.annotation), made),
            Kind(
                _of(dict, str, value.annotation), st.dictionaries(TEXTS, value.values, max_size=3)
            ),
            Kind(_of(Mapping, key.annotation, value.annotation), made),
            Kind(_of(OrderedDict, key.annotation, value.annotation), made.map(OrderedDict)),
            Kind(
                _of(defaultdict, key.annotation, list[int]),
                made.map(lambda found: defaultdict(list, {name: [1] for name in found})),
            ),
        ]
    )


def _records(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    return st.one_of(
        *(_fields(inner).flatmap(make) for make in (_model, _model, _model, _typed, _data, _named)),
        inner.map(_root),
    )


def _fields(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[dict[str, Kind]]:
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


def _model(fields: dict[str, Kind]) -> st.SearchStrategy[Kind]:
    @st.composite
    def made(draw: st.DrawFn) -> Kind:
        declared: dict[str, Any] = {}
        for name, each in fields.items():
            declared[name] = _declared(draw(st.sampled_from(SHAPES)), name, each, draw)
        config = draw(st.sampled_from(CONFIGS))
        plain = create_model(f"Model{next(_numbers)}", __config__=config, **declared)
        model: Any = _computing(plain) if draw(st.integers(0, 9)) == 0 else plain
        values = st.fixed_dictionaries({name: each.values for name, each in fields.items()})
        return Kind(model, values.map(lambda given: model.model_construct(**given)))

    return made()


def _declared(shape: str, name: str, kind: Kind, draw: st.DrawFn) -> Any:
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


def _typed(fields: dict[str, Kind]) -> st.SearchStrategy[Kind]:
    made = cast("Any", TypedDict)(
        f"Typed{next(_numbers)}", {n: k.annotation for n, k in fields.items()}
    )
    return st.just(Kind(made, st.fixed_dictionaries({n: k.values for n, k in fields.items()})))


def _data(fields: dict[str, Kind]) -> st.SearchStrategy[Kind]:
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
        [Kind(made, values), Kind(checked, values.map(lambda d: _as(checked, d)))]
    )


def _as(kind: Any, given: Any) -> Any:
    made = object.__new__(kind)
    made.__dict__.update(vars(given))
    return made


def _named(fields: dict[str, Kind]) -> st.SearchStrategy[Kind]:
    made = cast("Any", NamedTuple)(
        f"Named{next(_numbers)}", [(name, kind.annotation) for name, kind in fields.items()]
    )
    return st.just(Kind(made, st.builds(made, **{n: kind.values for n, kind in fields.items()})))


def _root(inner: Kind) -> Kind:
    model = _of(RootModel, inner.annotation)
    return Kind(model, inner.values.map(lambda value: model.model_construct(value)))  # noqa: PLW0108
