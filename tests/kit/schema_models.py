"""Models with every kind of value that a schema describes, for tests of schemas and of Avro."""

import enum
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, NaiveDatetime, PositiveInt


class Kind(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"


class Line(BaseModel):
    sku: str
    quantity: PositiveInt = 1
    price: Annotated[Decimal, Field(max_digits=10, decimal_places=2)] | None = None


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"


class Category(BaseModel):
    name: str
    parts: list["Category"] = []
    parent: "Category | None" = None


class Order(BaseModel):
    order_id: UUID
    placed_at: AwareDatetime
    opened_at: NaiveDatetime
    changed_at: datetime
    day: date
    at: time
    within: timedelta
    total: Annotated[Decimal, Field(max_digits=10, decimal_places=2)]
    rate: Decimal
    lines: list[Line]
    tags: dict[str, str] = {}
    counts: dict[str, dict[str, int]] = {}
    note: str | None = None
    kind: Kind = Kind.SMALL
    other_kind: Kind | None = None
    number: Literal[1, 2] = 1
    payment: Annotated[Card | Cash, Field(discriminator="kind")]
    first: Line | None = None
    category: Category
    size: int | float | str | None = None
    pair: tuple[int, str] = (1, "a")
    seen: set[int] = set()
    weight: float = 1.5
    is_gift: bool = False
    extra: Any = None
    details: dict[str, Any] = {}
    order_date: Annotated[str, Field(alias="order-date")] = "today"


ORDER: dict[str, Any] = {
    "order_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "placed_at": "2026-01-02T03:04:05.678901+01:00",
    "opened_at": "2026-01-02T03:04:05.000001",
    "changed_at": "2026-01-02T03:04:05",
    "day": "2026-01-02",
    "at": "03:04:05",
    "within": "P1DT2H",
    "total": "-12345678.90",
    "rate": "1.000000000000000000000001",
    "lines": [{"sku": "tea", "price": "4.50"}, {"sku": "cup", "quantity": 2}],
    "tags": {"a-b": "c"},
    "counts": {"x": {"y": 2}},
    "other_kind": "large",
    "number": 2,
    "payment": {"kind": "cash"},
    "first": {"sku": "tea"},
    "category": {"name": "a", "parts": [{"name": "b", "parent": {"name": "c"}}]},
    "size": 1.25,
    "seen": [3, 1],
    "extra": {"any": [1, None, "x"]},
    "details": {"any": [True]},
    "order-date": "tomorrow",
}
"""An order in JSON."""
