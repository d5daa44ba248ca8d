"""Examples fit the schema that they are made of; of one that cannot be met there are none."""

import enum
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AnyUrl, AwareDatetime, BaseModel, Field, HttpUrl, PositiveInt

from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.examples import MAX_EXAMPLES, examples


class Kind(enum.StrEnum):
    SMALL = "small"


class Line(BaseModel):
    sku: Annotated[str, Field(min_length=3, max_length=8)]
    quantity: PositiveInt = 1


class Order(BaseModel):
    order_id: UUID
    placed_at: AwareDatetime
    day: date
    total: Annotated[Decimal, Field(max_digits=10, decimal_places=2, ge=0)]
    kind: Kind
    lines: list[Line]
    tags: dict[str, str] = {}
    note: str | None = None
    payment: Literal["card", "cash"]


class Coded(BaseModel):
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]


def test_examples_fit_their_type():
    order = PayloadType(Order)
    made = [*examples(order.schema("serialization"))]
    assert 2 <= len(made) <= MAX_EXAMPLES
    assert all(order.read(each) for each in made)


@pytest.mark.parametrize("schema", [PayloadType(Coded).schema("serialization"), True, {"not": {}}])
def test_there_are_none_that_may_not_fit(schema: Any):
    assert [*examples(schema)] == []


@pytest.mark.parametrize(
    "limits",
    [
        {"ge": 0, "lt": 1},
        {"gt": 0, "lt": 1},
        {"ge": 5000, "max_digits": 6, "decimal_places": 2},
        {"max_digits": 2, "decimal_places": 2},
    ],
)
def test_an_example_of_a_decimal_number_is_within_its_bounds(limits):
    number: Any = PayloadType(Annotated[Decimal, Field(**limits)])
    assert all(isinstance(number.read(each), Decimal) for each in _samples_of(number))


@pytest.mark.parametrize("kind", [AnyUrl, HttpUrl])
def test_an_example_of_a_url_has_one_of_its_schemes(kind):
    url = PayloadType(kind)
    assert all(url.read(each) for each in _samples_of(url))


def _samples_of(payload_type: PayloadType) -> list[Any]:
    found = [*examples(payload_type.schema("serialization"))]
    assert found
    return found
