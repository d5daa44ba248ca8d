"""
Compare the invoices with the events of the orders: `python -m examples.shop.check_invoices`.

An invoice that was written twice or not at all, or has the status of an older event, is found.
"""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from examples.shop.consumers import shop_invoice
from examples.shop.database import database_url
from saga_engine.events import Events

Invoices = Mapping[str, dict[str, Any]]
"""Invoices by the ids of their orders."""

INTERVAL = 0.1
"""Seconds between two looks at the table."""

STATUSES = {"order-created": "open", "order-confirmed": "paid", "order-cancelled": "void"}


@dataclass(frozen=True, slots=True)
class InvoiceCheck:
    """How many invoices the events say, and a sentence for each that the table has otherwise."""

    invoices: int
    differences: list[str]


async def check_invoices(url: str, prefix: str = "", wait: float = 30.0) -> InvoiceCheck:
    """
    Wait until the consumer has written the invoices, and compare them with the events.

    Args:
        url: of the database of the shop, where the consumer writes, too.
        prefix: only of orders that begin with it; empty: of all.
        wait: seconds for the consumer to write every invoice.
    """
    engine = create_async_engine(url, poolclass=NullPool)
    async with Events(url) as events:
        expected = await _invoices_of_events(events, prefix)
    found = await _read_table(engine, prefix)
    with suppress(TimeoutError):
        async with asyncio.timeout(wait):
            while found != expected:
                await asyncio.sleep(INTERVAL)
                found = await _read_table(engine, prefix)
    differences = [
        f"{shop_invoice.name} {order_id}: the events say {expected.get(order_id)}, the table has"
        f" {found.get(order_id)}"
        for order_id in sorted(expected.keys() | found.keys())
        if expected.get(order_id) != found.get(order_id)
    ]
    return InvoiceCheck(len(expected), differences)


async def _invoices_of_events(events: Events, prefix: str) -> Invoices:
    invoices: dict[str, dict[str, Any]] = {}
    async for recorded in events.read_all(streams={f"order-{prefix}*"}):
        order_id = recorded.stream.removeprefix("order-")
        data: Any = recorded.data
        if recorded.type == "order-created":
            invoices[order_id] = {
                "order_id": order_id,
                "customer": data["customer"],
                "total": Decimal(data["total"]),
                "currency": data.get("currency", "EUR"),
            }
        invoices[order_id]["status"] = STATUSES[recorded.type]
    return invoices


async def _read_table(engine: AsyncEngine, prefix: str) -> Invoices:
    own = shop_invoice.c.order_id.startswith(prefix, autoescape=True)
    async with engine.connect() as connection:
        rows = (await connection.execute(select(shop_invoice).where(own))).mappings()
        return {row["order_id"]: dict(row) for row in rows}


async def main() -> None:
    checked = await check_invoices(database_url())
    if checked.differences:
        sys.exit("\n".join(checked.differences))
    print(f"invoices: {checked.invoices}, as the events say")


if __name__ == "__main__":
    asyncio.run(main())
