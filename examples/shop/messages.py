"""The messages of checkout: the commands of the saga and the replies of the services."""

from decimal import Decimal

from pydantic import BaseModel, Field

from examples.shop.orders import Customer, Quantity


class Checkout(BaseModel):
    """The input of the saga."""

    order_id: str = Field(pattern="^[A-Za-z0-9-]{1,100}$")
    customer: Customer
    items: dict[str, Quantity]
    card: str


class Created(BaseModel):
    """The reply to shop.create-order."""

    total: Decimal


class ChargeCard(BaseModel):
    """Command card.charge."""

    order_id: str
    amount: Decimal
    card: str


class Charge(BaseModel):
    """The reply to card.charge."""

    charge_id: str


class RefundCard(BaseModel):
    """Command card.refund; by order, because the reply may have been lost."""

    order_id: str


class Confirm(BaseModel):
    """Command shop.confirm-order."""

    order_id: str
    charge_id: str


class Cancel(BaseModel):
    """Command shop.cancel-order."""

    order_id: str
