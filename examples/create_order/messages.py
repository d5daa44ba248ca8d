"""The messages of create-order."""

from decimal import Decimal

from pydantic import BaseModel, Field


class CreateOrder(BaseModel):
    """The input of the saga: an order that exists, with its approval pending."""

    order_id: int
    consumer_id: int
    restaurant_id: int
    total: Decimal = Field(gt=0)


class VerifyConsumer(BaseModel):
    """Command consumer.verify."""

    consumer_id: int
    total: Decimal


class CreateTicket(BaseModel):
    """Command kitchen.create-ticket."""

    order_id: int
    restaurant_id: int


class Ticket(BaseModel):
    """The reply to kitchen.create-ticket."""

    ticket_id: int


class CancelTicket(BaseModel):
    """Command kitchen.cancel-ticket; by order, because the reply with the ticket may be lost."""

    order_id: int


class AuthorizeCard(BaseModel):
    """Command accounting.authorize."""

    consumer_id: int
    order_id: int
    total: Decimal


class ApproveTicket(BaseModel):
    """Command kitchen.approve-ticket."""

    ticket_id: int


class ApproveOrder(BaseModel):
    """Command order.approve."""

    order_id: int


class ReverseAuthorization(BaseModel):
    """Command accounting.reverse."""

    order_id: int
