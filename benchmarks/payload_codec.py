"""
Processor time to write and read one payload, in microseconds: `python -m benchmarks.payload_codec`.

A type that is known to be lossless is only written. Other types are read back after writing, and
compared as JSON or value by value.
"""

import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from pydantic import BaseModel, Field

from saga_engine.payload.payload import PayloadType

ITERATIONS, REPEATS = 10_000, 9


class OrderLine(BaseModel):
    sku: str
    quantity: int


class LosslessByType(BaseModel):
    order_id: str
    customer: str
    lines: list[OrderLine]
    gift: bool = False
    note: str | None = None


class ExactBase(BaseModel):
    order_id: UUID
    amount: Decimal = Field(gt=0)
    at: datetime
    lines: list[OrderLine] = Field(min_length=1)


class ComparedAsJson(ExactBase):
    pass


class ComparedByValue(ExactBase):
    tags: frozenset[str] = frozenset({"a", "b"})
    rate: float = 1.5


LINES = [OrderLine(sku="A-1", quantity=2), OrderLine(sku="B-2", quantity=1)]
CREATED_AT = datetime(2026, 1, 1, tzinfo=UTC)
VALUES: dict[str, BaseModel] = {
    "lossless by type": LosslessByType(order_id="o-1", customer="c-1", lines=LINES),
    "compared as JSON": ComparedAsJson(
        order_id=UUID(int=7), amount=Decimal("9.90"), at=CREATED_AT, lines=LINES
    ),
    "compared by value": ComparedByValue(
        order_id=UUID(int=7), amount=Decimal("9.90"), at=CREATED_AT, lines=LINES
    ),
}


def microseconds(function: Callable[[], object]) -> float:
    best = min(timeit.repeat(function, number=ITERATIONS, repeat=REPEATS, timer=time.process_time))
    return best / ITERATIONS * 1e6


def main() -> None:
    for name, value in VALUES.items():
        payload = PayloadType(type(value))
        data = payload.write(value)
        write = microseconds(lambda p=payload, v=value: p.write(v))  # type: ignore[misc]
        read = microseconds(lambda p=payload, d=data: p.read(d))  # type: ignore[misc]
        print(f"{name:17} write {write:6.1f} us   read {read:6.1f} us")


if __name__ == "__main__":
    main()
