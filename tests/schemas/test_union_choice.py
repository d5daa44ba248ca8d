"""A union that may read a value as another type than the one that was written is reported."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.canonical import fingerprint
from saga_engine.schemas.comparison import compare


class Pay(BaseModel):
    amount: int
    note: str = ""


class Refund(BaseModel):
    amount: int
    note: str = ""
    reason: str = ""


class Named(BaseModel):
    amount: int
    name: str


class Untagged(BaseModel):
    number: str


class LeftOut(BaseModel):
    kind: Literal["card"] = Field("card", exclude_if=lambda value: value == "card")
    number: str


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Bank(BaseModel):
    kind: Literal["bank"] = "bank"
    iban: str


Tagged = Annotated[Card | Bank, Field(discriminator="kind")]


def in_order(union: Any) -> Any:
    return Annotated[union, Field(union_mode="left_to_right")]


def sentences(writer: Any, reader: Any) -> list[str]:
    written = PayloadType(writer).schema("serialization")
    found = compare(written, PayloadType(reader).schema("validation"))
    return [each.sentence("v1", "v2") for each in found]


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (Pay, Refund | Pay),
        (Pay, Pay | Refund),
        (list[Pay], list[Refund | Pay]),
        (str, in_order(int | str)),
        (int, in_order(bool | int)),
        (float, in_order(int | float)),
        (str, in_order(int | str) | None),
        (str, date | str),
        (str, Decimal | str),
        (date | str, in_order(int | str)),
    ],
)
def test_a_value_that_may_be_read_as_another_type_is_named(writer, reader):
    (found,) = sentences(writer, reader)
    assert found.endswith(" in v1, and may be read as another type of its union in v2")


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (Pay, Named | Pay),
        (str, int | str),
        (str, str | date),
        (int, bool | int),
        (int, int | float),
        (str, in_order(str | int)),
        (date | str, date | str | None),
        (Pay | Refund, Pay | Refund | None),
        (Card | Bank, Tagged),
        (Tagged, Tagged | None),
        (Card, Tagged),
    ],
)
def test_a_value_that_is_read_as_its_type_is_accepted(writer, reader):
    assert sentences(writer, reader) == []


@pytest.mark.parametrize(("writer", "problem"), [(Untagged, "absent"), (LeftOut, "may be absent")])
def test_a_tag_that_a_reader_needs_and_that_is_not_written_is_named(writer, problem):
    (found,) = sentences(writer, Tagged)
    assert found.startswith("`kind` is required in v2 and ")
    assert found.endswith(f"{problem} in v1")


def test_the_order_of_a_union_and_its_tag_make_another_schema():
    schemas = [int | str, in_order(int | str), Card | Bank, Tagged]
    prints = {fingerprint(PayloadType(each).schema("validation")) for each in schemas}
    assert len(prints) == len(schemas)
