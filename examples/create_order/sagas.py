"""The saga: it can be compensated up to the pivot; after the pivot it only goes forward."""

from datetime import timedelta

from examples.create_order.messages import (
    ApproveOrder,
    ApproveTicket,
    AuthorizeCard,
    CancelTicket,
    CreateOrder,
    CreateTicket,
    ReverseAuthorization,
    Ticket,
    VerifyConsumer,
)
from saga_engine import Retry, Saga

create_order = Saga("create-order", version=1, input=CreateOrder, deadline=timedelta(minutes=5))


@create_order.step(command="consumer.verify", read_only=True)
def verify_consumer(order: CreateOrder) -> VerifyConsumer:
    return VerifyConsumer(consumer_id=order.consumer_id, total=order.total)


@create_order.step(command="kitchen.create-ticket", reply=Ticket)
def create_ticket(order: CreateOrder) -> CreateTicket:
    return CreateTicket(order_id=order.order_id, restaurant_id=order.restaurant_id)


@create_ticket.compensation(command="kitchen.cancel-ticket")
def cancel_ticket(order: CreateOrder) -> CancelTicket:
    return CancelTicket(order_id=order.order_id)


@create_order.step(command="accounting.authorize", pivot=True)
def authorize_card(order: CreateOrder) -> AuthorizeCard:
    return AuthorizeCard(consumer_id=order.consumer_id, order_id=order.order_id, total=order.total)


@authorize_card.compensation(command="accounting.reverse")
def reverse_authorization(order: CreateOrder) -> ReverseAuthorization:
    return ReverseAuthorization(order_id=order.order_id)


@create_order.step(command="kitchen.approve-ticket", retry=Retry(attempts=20))
def approve_ticket(create_ticket: Ticket) -> ApproveTicket:
    return ApproveTicket(ticket_id=create_ticket.ticket_id)


@create_order.step(command="order.approve", retry=Retry(attempts=20))
def approve_order(order: CreateOrder) -> ApproveOrder:
    return ApproveOrder(order_id=order.order_id)
