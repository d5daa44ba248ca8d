"""Payload types: what is read, what is written, and what errors may show."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, RootModel, create_model, field_validator
from pydantic_core import core_schema
from typing_extensions import TypedDict

from saga_engine.payload.payload import PayloadError, PayloadType, type_name


class Line(BaseModel):
    sku: str
    amount: Decimal
    at: datetime


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime
    pair: tuple[int, int]


class Picky(BaseModel):
    word: str

    @field_validator("word")
    @classmethod
    def refuse(cls, word: str) -> str:
        if word == "value":
            raise ValueError(f"secret {word}")
        if word == "key":
            raise KeyError(word)
        return word


@dataclass
class Point:
    x: int


class Typed(TypedDict):
    x: int


class Count(RootModel[int]):
    pass


class Counts(BaseModel):
    counts: list[int]


def test_json_is_read_as_the_authors_type_and_written_back():
    payload = PayloadType(Line)
    data = {"sku": "A", "amount": "9.90", "at": "2026-01-01T00:00:00Z"}
    value = payload.read(data)
    assert value == Line(sku="A", amount=Decimal("9.90"), at=datetime(2026, 1, 1, tzinfo=UTC))
    assert payload.write(value) == data


def test_json_that_is_text_is_read_as_the_same_value():
    payload = PayloadType(Strict)
    text = '{"at": "2026-01-01T00:00:00Z", "pair": [1, 2]}'
    assert payload.read_text(text) == payload.read(json.loads(text))


@pytest.mark.parametrize("text", ['{"word": "key"}', '{"word": "value"}', '{"word": 1}', "{"])
def test_json_text_that_does_not_fit_is_refused_without_its_values(text):
    with pytest.raises(PayloadError) as caught:
        PayloadType(Picky).read_text(text)
    assert "Picky" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_strict_model_reads_dates_from_text():
    value = PayloadType(Strict).read({"at": "2026-01-01T00:00:00Z", "pair": [1, 2]})
    assert value.pair == (1, 2)
    with pytest.raises(PayloadError, match=r"pair\.0: int_type"):
        PayloadType(Strict).read({"at": "2026-01-01T00:00:00Z", "pair": ["1", 2]})


@pytest.mark.parametrize(
    ("kind", "data"), [(Point, {"x": 1}), (Typed, {"x": 1}), (dict, {"x": 1}), (Any, [None])]
)
def test_a_payload_is_anything_pydantic_understands(kind, data):
    payload = PayloadType(kind)
    assert payload.write(payload.read(data)) == data


def test_a_mismatch_names_path_and_rule_but_no_value():
    with pytest.raises(PayloadError) as caught:
        PayloadType(Line).read({"sku": "secret", "amount": "secret", "at": "secret"})
    assert str(caught.value) == (
        "does not fit Line (amount: decimal_parsing; at: datetime_from_date_parsing)"
    )


def test_only_the_first_problems_are_named():
    with pytest.raises(PayloadError, match=r"\(0: int_parsing; 1: .*; 2: .* and 7 more\)"):
        PayloadType(list[int]).read(["x"] * 10)


def test_a_body_that_is_wrong_as_a_whole_is_called_body():
    with pytest.raises(PayloadError, match=r"does not fit Line \(body: model_type\)"):
        PayloadType(Line).read(3)


@pytest.mark.parametrize("word", ["value", "key"])
def test_the_message_of_a_custom_validator_is_not_quoted(word):
    with pytest.raises(PayloadError) as caught:
        PayloadType(Picky).read({"word": word})
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_data_that_is_not_json_does_not_fit():
    no_json: Any = object()
    with pytest.raises(PayloadError, match="cannot be read as int"):
        PayloadType(int).read(no_json)


@pytest.mark.parametrize("value", [Point(1), {"sku": "A"}, None, "A", Typed(x=1)])
def test_a_value_of_another_type_is_not_written(value):
    with pytest.raises(PayloadError, match=f"{type(value).__name__} does not fit Line"):
        PayloadType(Line).write(value)


def test_an_instance_that_was_not_validated_is_named_as_such():
    """Not as one that does not fit the class that it is of."""
    line = Line.model_construct(sku="A", amount="x", at="y")  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match=r"^Line was made or changed without validation, and do"):
        PayloadType(Line).write(line)


@pytest.mark.parametrize(
    "value",
    [Count.model_construct(None), Counts.model_construct(counts=None)],  # type: ignore[arg-type]
)
def test_none_of_an_instance_that_was_not_validated_is_not_written(value):
    """Pydantic writes it, and does not read it back."""
    with pytest.raises(PayloadError, match="made or changed without validation, and does not fit"):
        PayloadType(type(value)).write(value)


def test_none_is_written_only_where_it_is_declared():
    assert PayloadType(Line | None).write(None) is None


def test_a_value_json_cannot_hold_is_not_written():
    with pytest.raises(
        PayloadError, match=r"dict does not fit dict \(it cannot be written as JSON"
    ):
        PayloadType(dict).write({"x": object()})


class Level(IntEnum):
    HIGH = 3


class Name(str):
    __slots__ = ()


def test_what_is_written_is_plain_json():
    data = PayloadType(dict).write({Name("n"): Name("x"), "l": Level.HIGH, "5": True, "f": 1.5})
    assert isinstance(data, dict)
    assert data == {"n": "x", "l": 3, "5": True, "f": 1.5}
    assert {type(value) for value in data.values()} == {str, int, bool, float}


@pytest.mark.parametrize("data", ["\0", "a\ud800", -(2**63) - 1, 2**64, {"\0": 1}, [[{"x": "\0"}]]])
def test_a_value_that_no_database_accepts_is_not_written(data):
    with pytest.raises(PayloadError, match="holds what no database accepts"):
        PayloadType(Any).write(data)


@pytest.mark.parametrize("data", ["ä😀", 2**64 - 1, -(2**63), None, [], {}, True])
def test_a_value_that_a_database_accepts_is_written(data):
    assert PayloadType(Any).write(data) == data


class Unfinished(BaseModel):
    later: "Later"  # type: ignore[name-defined]  # noqa: F821 - the mistake under test


class Node(BaseModel):
    children: list["Node"]


class Lazy(BaseModel):
    model_config = ConfigDict(defer_build=True)
    x: int


@pytest.mark.parametrize(
    ("kind", "data"), [(Node, {"children": [{"children": []}]}), (Lazy, {"x": 1})]
)
def test_a_type_may_refer_to_itself(kind, data):
    assert PayloadType(kind).write(PayloadType(kind).read(data)) == data


@pytest.mark.parametrize("kind", [Unfinished, "Nowhere"])
def test_a_type_that_is_not_defined_yet_is_refused(kind):
    with pytest.raises(PayloadError, match=r"is not a payload type: .*not.* defined"):
        PayloadType(kind)


def test_a_type_of_more_levels_than_python_can_follow_is_refused():
    levels: list[Any] = [create_model("Level0", value=(int, 1))]
    for number in range(150):
        levels.append(create_model(f"Level{number + 1}", inner=(levels[-1], ...)))
    with pytest.raises(PayloadError, match=r"Level150 .*in more levels than can be read") as caught:
        PayloadType(levels[-1])
    assert caught.value.fix == "Use fewer levels, or a model that contains itself."


@pytest.mark.parametrize("kind", [object(), type("Plain", (), {}), 3])
def test_a_type_without_a_schema_is_refused(kind):
    with pytest.raises(PayloadError, match="is not a payload type"):
        PayloadType(kind)


def test_a_type_is_shown_by_its_name():
    assert type_name(Line) == "Line"
    assert type_name(list[int]) == "list[int]"
    assert type_name(int | None) == "int | None"


class Custom:
    """A type of the author's own: pydantic validates it and has no JSON Schema of it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, *_):
        return core_schema.no_info_plain_validator_function(lambda value: value)


def test_the_schema_of_a_type_that_has_none_is_any_json():
    assert PayloadType(Custom).schema("validation") == {}
    assert PayloadType(int).schema("serialization") == {"type": "integer"}
