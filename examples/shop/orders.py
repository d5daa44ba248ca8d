"""
The order aggregate. Everything here is pure: it neither reads a clock nor a database.

An order that was created before the shop sold abroad has version 1 of its first event, which has no
currency. The upcaster adds it when the event is read.
"""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, PositiveInt

from saga_engine import Rejected
from saga_engine.events import Aggregate

PRICES = {"tea": Decimal("4.50"), "cup": Decimal("8.00"), "pot": Decimal("24.90")}

Customer = Annotated[str, Field(min_length=1, max_length=100)]
Quantity = Annotated[int, Field(ge=1, le=1000)]
"""Of one item. The columns of the read model must take every total that a command accepts."""


class OrderCreated(BaseModel):
    """The total is part of the event: later prices do not change it."""

    customer: str
    items: dict[str, PositiveInt]
    total: Decimal
    currency: str
    created_at: AwareDatetime


class OrderConfirmed(BaseModel):
    """The order is paid."""

    charge_id: str


class OrderCancelled(BaseModel):
    """The order will not be delivered."""

    reason: str


class CreateOrder(BaseModel):
    """The number of each item, by its name."""

    customer: Customer
    items: dict[str, Quantity]
    currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")
    created_at: AwareDatetime


class ConfirmOrder(BaseModel):
    """The card was charged."""

    charge_id: str


class CancelOrder(BaseModel):
    """The order is not wanted, or cannot be paid."""

    reason: str


class Order(BaseModel):
    """What the commands must know of an order."""

    status: Literal["new", "created", "confirmed", "cancelled"] = "new"
    total: Decimal = Decimal(0)


orders = Aggregate("order", state=Order)


@orders.event("order-created", version=2)
def created(order: Order, event: OrderCreated) -> Order:
    return order.model_copy(update={"status": "created", "total": event.total})


@orders.upcast("order-created", version=1)
def add_currency(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"currency": "EUR"}


@orders.command
def create(order: Order, command: CreateOrder) -> OrderCreated:
    if order.status != "new":
        raise Rejected("order_exists", "There is an order with this id.")
    if not command.items:
        raise Rejected("no_items", "The order has no items.")
    if unknown := sorted(command.items.keys() - PRICES.keys()):
        raise Rejected("unknown_item", f"The shop does not sell {unknown[0]!r}.")
    total = sum((PRICES[name] * count for name, count in command.items.items()), Decimal(0))
    return OrderCreated(
        customer=command.customer,
        items=command.items,
        total=total,
        currency=command.currency,
        created_at=command.created_at,
    )


@orders.event("order-confirmed")
def confirmed(order: Order, _: OrderConfirmed) -> Order:
    return order.model_copy(update={"status": "confirmed"})


@orders.command
def confirm(order: Order, command: ConfirmOrder) -> OrderConfirmed:
    if order.status != "created":
        raise Rejected("not_open", f"The order is {order.status}.")
    return OrderConfirmed(charge_id=command.charge_id)


@orders.event("order-cancelled")
def cancelled(order: Order, _: OrderCancelled) -> Order:
    return order.model_copy(update={"status": "cancelled"})


@orders.command
def cancel(order: Order, command: CancelOrder) -> OrderCancelled | None:
    if order.status in ("new", "cancelled"):
        return None
    return OrderCancelled(reason=command.reason)
