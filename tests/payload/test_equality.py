"""When two values are the same, and the order of sets: cases that types seldom reach."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

import pytest
from pydantic import (
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    computed_field,
    field_validator,
    model_serializer,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from saga_engine import Secret
from saga_engine.payload.equality import is_same_value, sort_sets
from saga_engine.payload.payload import PayloadError, PayloadType
from saga_engine.payload.round_trip import analyze_schema


@pydantic_dataclass(slots=True)
class Slim:
    x: int


@dataclass
class Point:
    x: object


class Plain:
    def __init__(self, x):
        self.x = x


class Opaque:
    __slots__ = ()


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: object = Field(None, serialization_alias="y")


class Rooted(RootModel[frozenset[str]]):
    pass


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (None, None, True),
        (None, 0, False),
        (True, 1, False),
        (1, 1.0, True),
        ([1], (1,), False),
        ([1], [1, 2], False),
        ({1: 2}, {1: 3}, False),
        ({1: 2}, {2: 2}, False),
        ({1}, {1.0}, True),
        ({1}, {True}, False),
        ({1}, {2}, False),
        (deque([1]), deque([1]), True),
        (Slim(1), Slim(1), True),
        (Slim(1), Slim(2), False),
        (Point([1]), Point([1]), True),
        (Point([1]), Point((1,)), False),
        (Plain(1), Plain(1), True),
        (Plain(1), Plain(2), False),
        (Opaque(), Opaque(), False),
        (Open(x=1, z=1), Open(x=1, z=1), True),
        (Open(x=1, z=1), Open(x=1, z=2), False),
        (Open(x=1), Open(x=2), False),
        (date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC), False),
        (Secret([1]), Secret((1,)), False),
    ],
)
def test_sameness_is_stricter_than_equality(one, other, alike):
    assert is_same_value(one, other) is alike


A, B = {"b", "a"}, ["a", "b"]


@pytest.mark.parametrize(
    ("value", "data", "written"),
    [
        (A, list(A), B),
        (Secret(A), list(A), B),
        (deque([A]), [list(A)], [B]),
        (Rooted(frozenset(A)), list(A), B),
        ({1: A}, {"1": list(A)}, {"1": B}),
        (Point(A), {"x": list(A), "z": 1}, {"x": B, "z": 1}),
        (Open(x=A), {"y": list(A)}, {"y": B}),
        (Open(x=A), {"z": ["b", "a"]}, {"z": ["b", "a"]}),
        (A, ["b"], ["b"]),
        ([A], ["b", "a"], ["b", "a"]),
        ({1: A}, {}, {}),
        (object(), {"x": ["b", "a"]}, {"x": ["b", "a"]}),
        (object(), ["b", "a"], ["b", "a"]),
        (A, "ab", "ab"),
    ],
)
def test_only_the_json_of_sets_is_sorted(value, data, written):
    assert sort_sets(value, data) == written


def test_values_of_an_unknown_kind_of_schema_are_read_back():
    faith = analyze_schema({"type": "list", "items_schema": {}})
    assert (faith.lossless, faith.json_comparable, faith.has_sets) == (False, False, True)


@pytest.mark.parametrize("leaves", [SystemExit, KeyboardInterrupt])
def test_an_authors_function_that_exits_does_not_end_the_load(leaves):
    def leave() -> int:
        raise leaves

    class Leaving(BaseModel):
        x: int = Field(default_factory=leave)

        @computed_field
        def twice(self) -> int:
            return 2 * self.x

    if leaves is SystemExit:
        assert PayloadType(Leaving).write(Leaving(x=1)) == {"x": 1, "twice": 2}
    else:
        with pytest.raises(KeyboardInterrupt):
            PayloadType(Leaving)


class Busy(BaseModel):
    kind: Literal["busy"]
    mood: Literal["well", "ill"]
    inner: list["Busy"] = []

    @computed_field
    def number(self) -> int:
        return len(self.inner)


def test_a_record_that_is_tried_may_refer_to_itself():
    busy = Busy(kind="busy", mood="ill", inner=[Busy(kind="busy", mood="well")])
    assert PayloadType(Busy).read(PayloadType(Busy).write(busy)) == busy


class Picky(BaseModel):
    word: str

    @field_validator("word")
    @classmethod
    def refuse(cls, word: str) -> str:
        return {"a": "a"}[word]


def test_a_callers_value_is_validated_or_refused_with_a_sentence():
    payload = PayloadType(Picky)
    assert payload.validate({"word": "a"}) == payload.validate(Picky(word="a")) == Picky(word="a")
    with pytest.raises(PayloadError, match="word: string_type"):
        payload.validate({"word": 1})
    with pytest.raises(PayloadError, match=r"cannot be read as Picky \(KeyError\)"):
        payload.validate({"word": "b"})


def test_text_that_contains_infinity_is_text():
    assert PayloadType(list[str]).write(["NaN Infinity", "1" * 30]) == ["NaN Infinity", "1" * 30]
    with pytest.raises(PayloadError, match="no database accepts"):
        PayloadType(list[str]).write(["NaN", "\0"])


class Whole(BaseModel):
    inner: Picky

    @model_serializer
    def write(self) -> dict[str, str]:
        return {"word": self.inner.word}


def test_a_model_that_writes_itself_is_read_back():
    with pytest.raises(PayloadError, match="inner: missing"):
        PayloadType(Whole).write(Whole(inner=Picky(word="a")))


class Path(BaseModel):
    first: str = Field(validation_alias=AliasPath("first"))


def test_an_alias_path_of_one_name_is_that_name():
    assert PayloadType(Path).write(Path(first="a")) == {"first": "a"}
