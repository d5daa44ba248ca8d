"""
The FTGO services, without a database: they store nothing, so repeating a command is harmless.

Consumer 0 does not exist; a total above 1,000 exceeds the limit of every card.
"""

from examples.create_order.messages import (
    ApproveOrder,
    ApproveTicket,
    AuthorizeCard,
    CancelTicket,
    CreateTicket,
    ReverseAuthorization,
    Ticket,
    VerifyConsumer,
)
from saga_engine import Participant, Rejected

CARD_LIMIT = 1000

consumers = Participant("consumers")
kitchen = Participant("kitchen")
accounting = Participant("accounting")
ftgo_orders = Participant("ftgo-orders")


@consumers.command("consumer.verify")
async def verify(command: VerifyConsumer) -> None:
    if command.consumer_id == 0:
        raise Rejected("unknown_consumer", "There is no such consumer.")


@kitchen.command("kitchen.create-ticket")
async def create_ticket(command: CreateTicket) -> Ticket:
    return Ticket(ticket_id=command.order_id)


@kitchen.compensation("kitchen.cancel-ticket", of="kitchen.create-ticket")
async def cancel_ticket(command: CancelTicket) -> None:
    print(f"ticket of order {command.order_id} cancelled")


@kitchen.command("kitchen.approve-ticket")
async def approve_ticket(command: ApproveTicket) -> None:
    print(f"ticket {command.ticket_id} approved")


@accounting.command("accounting.authorize")
async def authorize(command: AuthorizeCard) -> None:
    if command.total > CARD_LIMIT:
        raise Rejected("card_declined", f"The limit is {CARD_LIMIT}.")


@accounting.compensation("accounting.reverse", of="accounting.authorize")
async def reverse(command: ReverseAuthorization) -> None:
    print(f"authorization of order {command.order_id} reversed")


@ftgo_orders.command("order.approve")
async def approve(command: ApproveOrder) -> None:
    print(f"order {command.order_id} approved")
