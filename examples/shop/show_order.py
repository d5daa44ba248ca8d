"""Show an order, and all of its customer: `python -m examples.shop.show_order o-1`."""

import asyncio
import sys

from sqlalchemy.ext.asyncio import create_async_engine

from examples.shop.database import database_url
from examples.shop.projections import order_by_id, orders_by_customer


async def show(order_id: str) -> None:
    """Print an order, then the orders of its customer."""
    engine = create_async_engine(database_url())
    async with engine.connect() as connection:
        order = await order_by_id(connection, order_id)
        if order is None:
            sys.exit(f"The read model has no order {order_id}.")
        print(order.order_id, order.status, order.items, order.total, order.currency)
        print(f"Orders of {order.customer}:")
        for each in await orders_by_customer(connection, order.customer):
            print(" ", each.order_id, each.status, each.total, each.currency)
    await engine.dispose()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Give the id of an order: python -m examples.shop.show_order o-1")
    asyncio.run(show(sys.argv[1]))
