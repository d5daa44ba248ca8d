"""The messages of place-order: the commands of the saga and the replies of the services."""

from decimal import Decimal

from pydantic import BaseModel, Field


class PlaceOrder(BaseModel):
    """The input of the saga."""

    order_id: str
    sku: str
    quantity: int = Field(gt=0)
    amount: Decimal = Field(gt=0)
    card: str


class ReserveStock(BaseModel):
    """Command inventory.reserve."""

    order_id: str
    sku: str
    quantity: int


class Reservation(BaseModel):
    """The reply to inventory.reserve."""

    reservation_id: str


class ReleaseStock(BaseModel):
    """Command inventory.release; by order, because the reply may have been lost."""

    order_id: str


class ChargeCard(BaseModel):
    """Command payment.charge."""

    order_id: str
    amount: Decimal
    card: str


class Charge(BaseModel):
    """The reply to payment.charge."""

    charge_id: str


class RefundCard(BaseModel):
    """Command payment.refund."""

    order_id: str


class ConfirmOrder(BaseModel):
    """Command order.confirm."""

    order_id: str
    reservation_id: str
    charge_id: str


class Confirmation(BaseModel):
    """The reply to order.confirm."""

    order_id: str


class CancelOrder(BaseModel):
    """Command order.cancel."""

    order_id: str
