"""What a type says is what arrives: transported unchanged, or refused with a sentence."""

import re
from collections import OrderedDict, deque
from collections.abc import Generator
from dataclasses import InitVar, dataclass
from dataclasses import field as part
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    computed_field,
    field_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from saga_engine.payload.payload import PayloadError, PayloadType


def arrived(kind, value):
    payload = PayloadType(kind)
    return payload.read(payload.write(value))


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    order_id: str
    gift_note: str | None = None


class CamelDict(TypedDict):
    order_id: Annotated[str, Field(alias="orderId")]


@pydantic_dataclass
class CamelClass:
    order_id: Annotated[str, Field(alias="orderId")]


def test_names_are_aliases_in_both_directions():
    given = Camel(order_id="o", gift_note="for you")
    assert PayloadType(Camel).write(given) == {"orderId": "o", "giftNote": "for you"}
    assert arrived(Camel, given) == given
    assert PayloadType(CamelDict).write(CamelDict(order_id="o")) == {"orderId": "o"}
    assert arrived(CamelDict, CamelDict(order_id="o")) == {"order_id": "o"}
    by_alias: Any = CamelClass  # mypy does not know the alias
    assert PayloadType(CamelClass).write(by_alias(orderId="o")) == {"orderId": "o"}


@pytest.mark.parametrize(
    "config",
    [
        ConfigDict(validate_by_alias=False, validate_by_name=True),
        ConfigDict(serialize_by_alias=False),
        ConfigDict(serialize_by_alias=True, validate_by_name=True),
    ],
)
def test_the_configuration_of_a_model_does_not_change_its_json(config):
    class Chosen(BaseModel):
        model_config = config
        order_id: Annotated[str, Field(alias="orderId")]
        note: Annotated[str | None, Field(alias="noteText")] = None

    given = Chosen.model_construct(order_id="o", note="n")
    assert PayloadType(Chosen).write(given) == {"orderId": "o", "noteText": "n"}
    assert arrived(Chosen, given) == given


def test_a_field_that_is_read_by_more_names_is_written_by_one_of_them():
    class Chosen(BaseModel):
        order_id: str = Field(
            validation_alias=AliasChoices("id", AliasPath("ids", 0), "orderId"),
            serialization_alias="orderId",
        )

    assert arrived(Chosen, Chosen(id="o")) == Chosen(id="o")


class Elsewhere(BaseModel):
    order_id: str = Field("none", validation_alias="in", serialization_alias="out")


class Inside(BaseModel):
    order_id: str = Field(validation_alias=AliasPath("ids", 0))


class Masked(BaseModel):
    card: str

    @field_serializer("card")
    def mask(self, card: str) -> str:
        return card[-4:].rjust(8, "*")


class Shown(BaseModel):
    card: SecretStr | None = None


class Excluded(BaseModel):
    card: str = Field(exclude=True)


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int

    @computed_field
    def area(self) -> int:
        return self.side**2


class Opaque:
    pass


class Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    opaque: Opaque


@dataclass
class Once:
    word: InitVar[str]
    kept: str = part(init=False, default="")


@pytest.mark.parametrize(
    ("kind", "problem", "fix"),
    [
        (SecretStr, "hides its value", r"saga_engine\.Secret\[str\]"),
        (SecretBytes, "hides its value", r"saga_engine\.Secret"),
        (Shown, r"Shown\.card hides its value", r"saga_engine\.Secret"),
        (list[dict[str, Shown]], r"Shown\.card hides", r"saga_engine\.Secret"),
        (Excluded, r"Excluded\.card is required, and excluded", "exclude=True"),
        (Elsewhere, r"Elsewhere\.order_id is written as 'out', and read as 'in'", "alias="),
        (Inside, r"Inside\.order_id is written as 'order_id', and read as a part", "alias="),
        (Masked, "Masked is not read back as it was written", "a validator that fit"),
        (Computed, "Computed is not read back as it was written", "reads back"),
        (Holder, r"Holder\.opaque cannot be read from JSON", "reads back"),
        (dict[tuple[int, int], str], "a key of the mapping is written as text", "list of pairs"),
        (Generator[int, None, None], "is not read back as it was written", "reads back"),
        (Once, "Once is not read back as it was written", "reads back"),
        (
            Annotated[date, PlainSerializer(lambda day: day.strftime("%d.%m.%Y"))],
            "is not read back as it was written",
            "a validator that fit",
        ),
    ],
)
def test_a_type_that_cannot_be_read_back_is_refused_at_its_declaration(kind, problem, fix):
    with pytest.raises(PayloadError, match=f"cannot be sent as JSON: .*{problem}") as refused:
        PayloadType(kind)
    assert re.search(fix, refused.value.fix)


class Rooted(RootModel[list[int]]):
    pass


class Colour(Enum):
    RED = "red"
    ONE = 1


class Pair(NamedTuple):
    left: int
    right: str


class Parent(BaseModel):
    name: str


class Child(Parent):
    more: int


class Line(BaseModel):
    parent: Parent


class Dated(BaseModel):
    at: datetime
    took: timedelta = timedelta(0)
    day: date = date(2026, 1, 1)
    hour: time = time(1)


class Tagged(BaseModel):
    kind: Literal["tagged"] = "tagged"
    x: Decimal


class Other(BaseModel):
    kind: Literal["other"] = "other"


class Base64(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    raw: bytes


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int


class Cached(BaseModel):
    x: int
    _seen: int = PrivateAttr(0)


class Checked(BaseModel):
    x: int

    @model_validator(mode="after")
    def even(self) -> "Checked":
        assert self.x % 2 == 0
        return self


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Rooted, Rooted([1, 2])),
        (Colour, Colour.ONE),
        (Pair, Pair(1, "x")),
        (tuple[int, str], (1, "x")),
        (deque[int], deque([1, 2])),
        (set[int], {1, 2}),
        (frozenset[str], frozenset({"a", "b"})),
        (dict[int, str], {1: "a"}),
        (dict[UUID, Decimal], {UUID(int=1): Decimal("1.50")}),
        (Dated, Dated(at=datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1))),
        (
            Dated,
            Dated(
                at=datetime.fromisoformat("2026-01-01T00:00:00"),
                took=timedelta(days=-1, microseconds=1),
            ),
        ),
        (Dated, Dated(at=datetime(1, 1, 1, tzinfo=UTC), hour=time(23, 59, 59, 999999))),
        (Annotated[Tagged | Other, Field(discriminator="kind")], Tagged(x=Decimal("1E+5"))),
        (Tagged | Other, Other()),
        (Base64, Base64.model_construct(raw=b"\xff\x00")),
        (Open, Open.model_validate({"x": 1, "y": [1]})),
        (Cached, Cached(x=1)),
        (Checked, Checked(x=2)),
        (Path, Path("/a/b")),
        (IPv4Address, IPv4Address("192.0.2.1")),
        (AnyUrl, AnyUrl("https://example.com/a?b=c")),
        (re.Pattern[str], re.compile("a+")),
        (complex, complex(1, -2)),
        (Any, {"a": [1, 1.5, None, True, "x"]}),
        (int | str, "1"),
        (str | UUID, UUID(int=1)),
        (float | None, -0.5),
        (float, 9.486928166177516e17),
        (list[float], [1e16, 1e22, 5e-324, 1.7976931348623157e308]),
        (dict[str, Any], {"x": [1e300, 1e-7, "1e16"], "y": 1.5}),
        (bytes, b"ab"),
        (OrderedDict[str, int], OrderedDict(a=1)),
    ],
)
def test_a_value_that_can_be_read_back_is_written(kind, value):
    back = arrived(kind, value)
    assert back == value or back.model_dump_json() == value.model_dump_json()
    assert type(back) is type(value)


class Nothing(RootModel[None]):
    pass


class Maybe(RootModel[Nothing | None]):
    """None itself, and Nothing in it, are both written as null."""


class Rate(BaseModel):
    rate: float | None = None


class Optional(BaseModel):
    hidden: int = Field(0, exclude=True)


class Text(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    text: str


def changed(model, **fields):
    for name, value in fields.items():
        setattr(model, name, value)
    return model


class Unequal:
    def __eq__(self, other: object) -> bool:
        raise KeyError("secret")

    __hash__ = None  # type: ignore[assignment]


class Moody(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    mood: Annotated[
        Unequal, BeforeValidator(lambda _: Unequal()), PlainSerializer(lambda _: "secret")
    ]


class Raising(BaseModel):
    x: int

    @field_serializer("x")
    def refuse(self, x: int) -> int:
        if x == 13:
            raise LookupError(f"secret {x}")
        return x


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (Rate, Rate(rate=float("nan")), "no database accepts"),
        (list[float], [float("inf")], "no database accepts"),
        (dict[str, float], {"x": float("-inf")}, "no database accepts"),
        (Rate, changed(Rate(), rate=2**53 + 1), "arrive altered"),
        (RootModel[float], RootModel[float].model_construct(2**53 + 1), "arrive altered"),
        (Any, {"x": [9.486928166177516e17]}, r"arrive altered.*\(x\.0\)"),
        (Optional, Optional(hidden=3), r"arrive altered.*\(hidden\)"),
        (Line, Line(parent=Child(name="a", more=1)), r"arrive altered.*\(parent\)"),
        (str | UUID, str(UUID(int=1)), "arrive altered"),
        (int | str | date, date(2026, 1, 1), "arrive altered"),
        (Any, (1, 2), "arrive altered"),
        (Any, {"at": [date(2026, 1, 1)]}, r"arrive altered.*\(at\.0\)"),
        (dict, {1: "a"}, "arrive altered"),
        (Any, {1}, "arrive altered"),
        (Any, Camel(order_id="o"), "arrive altered"),
        (Text, changed(Text(text="a"), text=" a "), r"arrive altered.*\(text\)"),
        (Maybe, Maybe(Nothing(None)), "arrive altered"),
        (Parent, changed(Parent(name="a"), name=3), "cannot be written"),
        (Tagged, Tagged.model_construct(x=Decimal("NaN")), r"x: finite_number"),
        (Checked, changed(Checked(x=2), x=3), "body: assertion_error"),
        (OrderedDict[str, int], OrderedDict(b=1, a=2), "arrive altered"),
        (bytes, b"\xff", r"bytes cannot be written as bytes \(UnicodeDecodeError\)"),
        (Fraction, Fraction(1, 3), None),
        (Raising, Raising(x=13), "cannot be written as JSON"),
        (Moody, Moody(mood=1), r"\(KeyError\)"),
    ],
)
def test_a_value_that_would_be_altered_is_refused_without_quoting_it(kind, value, problem):
    if problem is None:
        assert arrived(kind, value) == value
        return
    with pytest.raises(PayloadError, match=problem) as refused:
        PayloadType(kind).write(value)
    assert "secret" not in str(refused.value)


def test_sets_are_written_in_one_order_however_deep_they_are():
    class Deep(BaseModel):
        names: set[str]
        nested: dict[str, list[frozenset[str]]]
        pairs: frozenset[tuple[str, frozenset[int]]]

    words = ["pear", "fig", "apple", "Plum", "date", "kiwi", "10", "9"]
    for turn in range(len(words)):
        turned = words[turn:] + words[:turn]
        value = Deep(
            names=set(turned),
            nested={"x": [frozenset(turned)]},
            pairs=frozenset(
                {(word, frozenset(range(30 + turn, 20 + turn, -1))) for word in turned}
            ),
        )
        data: Any = PayloadType(Deep).write(value)
        assert data["names"] == sorted(words)
        assert data["nested"]["x"][0] == sorted(words)
        assert [word for word, _ in data["pairs"]] == sorted(words)
        assert data["pairs"][0][1] == list(range(21 + turn, 31 + turn))
    assert PayloadType(set[int]).write({33, 1, 2, 65}) == [1, 2, 33, 65]


class Plain(BaseModel):
    model_config = ConfigDict(frozen=True)
    name: str = Field(alias="theName")
    lines: list[Parent] | None = None
    count: dict[str, int] = {}
    colour: Literal["a", "b"] = "a"


class Part(BaseModel):
    within: "Part | None" = None


class Box(RootModel["Box | None"]):
    pass


@pytest.mark.parametrize(
    ("kind", "proven"),
    [
        (Plain, True),
        (Part, True),
        (Box, False),  # a box without a box is null, and so is None
        (list[int], True),
        (Line, False),  # Parent has been subclassed
        (Rate, True),
        (Tagged, False),
        (set[int], False),
        (Any, False),
        (int | str, False),
        (Text, False),
        (Checked, False),
        (Open, False),
        (Optional, False),
    ],
)
def test_only_lossless_types_are_not_read_back(kind, proven):
    if kind is Plain:

        class Inner(BaseModel):
            rank: int | None = None

        class Free(BaseModel):
            name: str = Field(alias="theName")
            rows: list[Inner]
            count: dict[str, int] = {}
            colour: Literal["a", "b"] = "a"

        kind = Free
    assert PayloadType(kind).lossless is proven
