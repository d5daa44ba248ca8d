"""Examples fit the schema that they are made of; of one that cannot be met there are none."""

import enum
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AwareDatetime, BaseModel, Field, PositiveInt

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
