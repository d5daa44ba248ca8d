"""
The order as the first version of the shop declared it, before it sold abroad.

Nothing runs it any more. Events of version 1 are stored, and a feed in Avro writes each event with
the schema of its version: `saga-engine schemas register examples.shop.first_version`.
"""

from decimal import Decimal

from pydantic import AwareDatetime, BaseModel, PositiveInt

from saga_engine.events import Aggregate


class OrderCreated(BaseModel):
    """Version 1 has no currency."""

    customer: str
    items: dict[str, PositiveInt]
    total: Decimal
    created_at: AwareDatetime


class Order(BaseModel):
    """What the commands had to know of an order."""

    total: Decimal = Decimal(0)


orders = Aggregate("order", state=Order)


@orders.event("order-created")
def created(_: Order, event: OrderCreated) -> Order:
    return Order(total=event.total)
