"""
Compare the read model with a replay of all events: `python -m examples.shop.replay`.

The replay begins with the first event and changes plain dictionaries, without the functions of the
projection. So it finds an event that was applied twice, not at all, or wrongly.
"""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from examples.shop.database import database_url
from examples.shop.orders import OrderCreated, add_currency
from examples.shop.projections import shop_customer, shop_order, shop_orders
from saga_engine.errors import SagaEngineError
from saga_engine.events import Events, Recorded

Rows = dict[tuple[str, ...], dict[str, Any]]
"""Rows by the name of their table and their primary key."""

PROJECTION_TIMEOUT = 30.0
"""Seconds for the projection to apply every event."""

NO_ORDERS: Mapping[str, Any] = {"orders": 0, "ordered": Decimal(0)}
LAST_STATUS = {"order-confirmed": "confirmed", "order-cancelled": "cancelled"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rows that the events say, and a sentence for each row that the tables have otherwise."""

    rows: Rows
    differences: list[str]

    def statuses(self) -> dict[str, str]:
        """Return the status of each order by its id."""
        return {
            key[1]: row["status"] for key, row in self.rows.items() if key[0] == shop_order.name
        }


async def compare(url: str, prefix: str = "") -> Comparison:
    """
    Wait until the projection has applied every event, and compare its tables with a replay.

    Args:
        url: of the shop's database. No process may append to these orders meanwhile.
        prefix: only orders and customers that begin with it; empty: all.

    Raises:
        TimedOut: the projection has not applied every event in time.
        Conflict: it is stopped or paused.
    """
    engine = create_async_engine(url, poolclass=NullPool)
    async with Events(url) as events, engine.connect() as connection:
        await events.caught_up(shop_orders, await events.position(), PROJECTION_TIMEOUT)
        expected = await _replay(events, prefix)
        found = await _read_tables(connection, prefix)
    differences = [
        f"{' '.join(key)}: the events say {expected.get(key)}, the table has {found.get(key)}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]
    return Comparison(expected, differences)


async def _replay(events: Events, prefix: str) -> Rows:
    rows: Rows = {}
    async for recorded in events.read_all(streams={f"order-{prefix}*"}):
        _apply(rows, recorded)
    return rows


def _apply(rows: Rows, recorded: Recorded) -> None:
    order_id = recorded.stream.removeprefix("order-")
    key = (shop_order.name, order_id)
    if status := LAST_STATUS.get(recorded.type):
        rows[key]["status"] = status
        return
    data: Any = recorded.data
    event = OrderCreated.model_validate(
        add_currency(data) if recorded.schema_version == 1 else data
    )
    rows[key] = {"order_id": order_id, **event.model_dump(), "status": "created"}
    customer = {"customer": event.customer, "currency": event.currency}
    before = rows.get((shop_customer.name, *customer.values()), NO_ORDERS)
    rows[(shop_customer.name, *customer.values())] = {
        **customer,
        "orders": before["orders"] + 1,
        "ordered": before["ordered"] + event.total,
    }


async def _read_tables(connection: AsyncConnection, prefix: str) -> Rows:
    rows: Rows = {}
    for table in (shop_order, shop_customer):
        names = [column.name for column in table.primary_key.columns]
        own = table.c[names[0]].startswith(prefix, autoescape=True)
        for row in (await connection.execute(select(table).where(own))).mappings():
            rows[(table.name, *(row[name] for name in names))] = dict(row)
    return rows


async def main() -> None:
    try:
        comparison = await compare(database_url())
    except SagaEngineError as error:
        sys.exit(str(error))
    if comparison.differences:
        sys.exit("\n".join(comparison.differences))
    print(f"{len(comparison.rows)} rows, equal to a replay of all events")


if __name__ == "__main__":
    asyncio.run(main())
