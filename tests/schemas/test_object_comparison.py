"""Fields and items: which of the reader's schemas reads which one of the writer's."""

from enum import StrEnum
from typing import Annotated, Any

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.comparison import compare
from saga_engine.schemas.incompatibility import Problem
from tests.kit.schema_pairs import INTEGER, TEXT, record

Letters = Annotated[str, Field(pattern="^[a-z]+$")]


class Kind(StrEnum):
    SMALL = "small"
    LARGE = "large"


class OnlyA(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class AandB(BaseModel):
    a: int
    b: str


class OpenA(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class NewOrOld(BaseModel):
    new: int = Field(validation_alias=AliasChoices("new", "old"))


class NewOrOldOnly(NewOrOld):
    model_config = ConfigDict(extra="forbid")


class Old(BaseModel):
    old: int


class OldText(BaseModel):
    old: str


class NewAndOldText(OldText):
    new: int


class MaybeNewAndOldText(OldText):
    new: int = 0


class AByName(BaseModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)
    a: int = Field(alias="b")


class Inside(BaseModel):
    a: int = Field(0, validation_alias=AliasChoices("a", AliasPath("b", "a")))


class InsideOnly(Inside):
    model_config = ConfigDict(extra="forbid")


class OnlyB(BaseModel):
    b: dict[str, str]


class Tagged(BaseModel):
    new: int = Field(validation_alias=AliasChoices("new", "old"))
    note: str = ""


def problems(writer: Any, reader: Any) -> list[tuple[str, Problem]]:
    found = compare(
        PayloadType(writer).schema("serialization"), PayloadType(reader).schema("validation")
    )
    return [(each.path, each.problem) for each in found]


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (AandB, OpenA),
        (Old, NewOrOld),
        (Old, NewOrOldOnly),
        (NewAndOldText, NewOrOld),
        (OnlyA, AByName),
        (OnlyA, Inside),
        (OnlyA, InsideOnly),
        (OnlyA, dict[str, int]),
        (AandB, dict[str, int | str]),
        (dict[str, int], dict[str, float]),
        (dict[str, int], dict),
        (dict[Letters, int], dict[Letters, float]),
        (dict[Kind, int], dict[str, int]),
        (tuple[int, str], list[int | str]),
        (tuple[int, int], list[int]),
        (set[int], list[int]),
        (Annotated[list[int], Field(max_length=3)], Annotated[list[int], Field(max_length=5)]),
    ],
)
def test_a_type_reads_what_a_narrower_one_writes(writer, reader):
    assert problems(writer, reader) == []


@pytest.mark.parametrize(
    ("writer", "reader", "found"),
    [
        (AandB, OnlyA, [("b", Problem.UNKNOWN_FIELD)]),
        (OpenA, OnlyA, [("*", Problem.UNKNOWN_FIELD)]),
        (OpenA, AandB, [("b", Problem.OPTIONAL), ("b", Problem.TYPE)]),
        (dict[str, int], AandB, [(n, Problem.OPTIONAL) for n in "ab"] + [("b", Problem.TYPE)]),
        (AandB, dict[str, int], [("b", Problem.TYPE)]),
        (dict[str, str], dict[str, int], [("*", Problem.TYPE)]),
        (AandB, dict[Letters, Any], [("a", Problem.UNKNOWN_FIELD), ("b", Problem.UNKNOWN_FIELD)]),
        (dict[str, int], dict[Letters, int], [("*", Problem.UNKNOWN_FIELD)]),
        (dict[Letters, str], dict[Letters, int], [("/^[a-z]+$/", Problem.TYPE)]),
        (dict[Letters, str], dict[str, int], [("/^[a-z]+$/", Problem.TYPE)]),
        (dict[str, int], dict[Kind, int], [("* (the name)", Problem.VALUE)]),
        (OnlyA, dict[Kind, int], [("a (the name)", Problem.VALUE)]),
        (dict[str, int], dict[int, int], [("* (the name)", Problem.FORMAT)]),
        (list[int], set[int], [("body", Problem.LIMIT)]),
        (list[int], tuple[int, int], [("body", Problem.LIMIT), ("body", Problem.LIMIT)]),
        (tuple[int, str], tuple[int, int], [("[1]", Problem.TYPE)]),
        (list[str], list[int], [("[]", Problem.TYPE)]),
        (dict[str, list[AandB]], dict[str, list[OnlyA]], [("*[].b", Problem.UNKNOWN_FIELD)]),
    ],
)  # fmt: skip
def test_a_part_that_may_be_refused_is_named(writer, reader, found):
    assert problems(writer, reader) == found


def test_the_number_of_fields_is_compared():
    writer = record({"a": TEXT, "b": TEXT}, "a")
    assert compare(writer, {"type": "object", "minProperties": 1, "maxProperties": 2}) == []
    found = compare(writer, {"type": "object", "minProperties": 2, "maxProperties": 1})
    assert [each.read for each in found] == ["has minProperties 2", "has maxProperties 1"]
    any_object: Any = {"type": "object", "additionalProperties": True}
    assert compare(any_object, {"type": "object", "maxProperties": 9})


def test_items_after_the_named_ones_are_compared():
    writer: Any = {"type": "array", "prefixItems": [TEXT], "items": INTEGER}
    assert compare(writer, {"type": "array", "prefixItems": [TEXT], "items": INTEGER}) == []
    (found,) = compare(writer, {"type": "array", "prefixItems": [TEXT], "items": TEXT})
    assert found.path == "[]"


@pytest.mark.parametrize(
    ("writer", "reader", "expected"),
    [
        (OldText, NewOrOld, [("old", Problem.TYPE)]),
        (MaybeNewAndOldText, NewOrOld, [("old", Problem.TYPE)]),
        (NewAndOldText, NewOrOldOnly, [("old", Problem.UNKNOWN_FIELD)]),
        (AandB, NewOrOld, [("new", Problem.MISSING)]),
        (dict[str, int], NewOrOld, [("new", Problem.OPTIONAL)]),
        (OnlyB, Inside, [("a", Problem.NOT_UNDERSTOOD)]),
        (OnlyB, InsideOnly, [("b", Problem.UNKNOWN_FIELD), ("a", Problem.NOT_UNDERSTOOD)]),
        (OldText, OnlyA | NewOrOld, [("old", Problem.TYPE)]),
    ],
)
def test_a_field_is_read_by_each_of_its_names(writer, reader, expected):
    assert problems(writer, reader) == expected


def test_a_member_that_reads_by_another_name_may_be_chosen():
    (found,) = problems(Old, Tagged | Old)
    assert found == ("body", Problem.UNION)
