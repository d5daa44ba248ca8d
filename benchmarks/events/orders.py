"""
The events of a shop's orders: each order is placed, and confirmed a while later.

An event has about 150 bytes of data. One in a thousand orders is of the same customer.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel

from benchmarks.events.event_database import EventDatabase
from saga_engine.events import NEW, Aggregate, Append, Recorded
from saga_engine.events.event_store.append import NewEvent, checked_events
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.settings import Settings

CUSTOMERS = 1_000
CONFIRMED_LATER = 50
"""How many orders are placed between the two events of an order."""

_DIFFERENT_ORDERS = 10_000
"""Orders whose events are written as JSON once, when many events are needed."""

LOG_ID = UUID(int=1)
"""The identity of a log in memory."""

_FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)


class OrderLine(BaseModel):
    sku: str
    quantity: int


class OrderPlaced(BaseModel):
    customer: str
    lines: list[OrderLine]
    total: Decimal
    placed_at: AwareDatetime


class OrderConfirmed(BaseModel):
    charge_id: str


class Order(BaseModel):
    status: str = "new"


orders = Aggregate("order", state=Order)


@orders.event("order-placed")
def placed(order: Order, _: OrderPlaced) -> Order:
    return order.model_copy(update={"status": "placed"})


@orders.event("order-confirmed")
def confirmed(order: Order, _: OrderConfirmed) -> Order:
    return order.model_copy(update={"status": "confirmed"})


def new_order(number: int) -> Append:
    """The append of both events of an order that does not exist."""
    placed = OrderPlaced(
        customer=f"customer-{number * 7919 % CUSTOMERS}",
        lines=[OrderLine(sku="tea", quantity=2), OrderLine(sku="cup", quantity=number % 5 + 1)],
        total=Decimal(number % 10_000) / 100,
        placed_at=_FIRST_DAY + timedelta(seconds=number),
    )
    confirmed = OrderConfirmed(charge_id=f"charge-{number:012}")
    return Append(f"order-{number}", [placed, confirmed], expected=NEW)


async def fill(database: EventDatabase, events: int) -> None:
    """Store *events* events of orders, an even number, with COPY."""
    connection = await database.connect()
    try:
        await connection.copy_records_to_table(
            "stream_event",
            schema_name="saga_engine",
            columns=("stream", "version", "type", "schema_version", "data", "metadata"),
            records=_rows(events // 2),
        )
        await connection.execute("VACUUM (FREEZE, ANALYZE) saga_engine.stream_event")
    finally:
        await connection.close()


def recorded_orders(events: int) -> list[Recorded]:
    """Return the first events of those that `fill` stores, as the log LOG_ID has them."""
    log = EventLog(LOG_ID)
    rows = islice(_rows(events), events)
    return [
        log.recorded(
            (stream, version, 0, position, _FIRST_DAY, name, schema_version, data, metadata)
        )
        for position, (stream, version, name, schema_version, data, metadata) in enumerate(rows, 1)
    ]


def _rows(count: int) -> Iterator[tuple[Any, ...]]:
    """The rows of *count* orders, with the second event of each after that of later orders."""
    for number in range(count + CONFIRMED_LATER):
        for order, version in ((number, 1), (number - CONFIRMED_LATER, 2)):
            if 0 <= order < count:
                event = _written(order % _DIFFERENT_ORDERS)[version - 1]
                stream = f"order-{order}"
                yield stream, version, event.type, event.schema_version, event.data, "{}"


@lru_cache(maxsize=_DIFFERENT_ORDERS)
def _written(number: int) -> Sequence[NewEvent]:
    return checked_events([new_order(number)], Settings())
