"""
The services: the shop, whose steps append to its orders, and a bank without a database.

A step and its events are one transaction with the barrier: a command that arrives twice appends
once. Where an aggregate rejects a command, the step is rejected. Card "declined" is rejected.
"""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from examples.shop.database import database_url
from examples.shop.messages import (
    Cancel,
    Charge,
    ChargeCard,
    Checkout,
    Confirm,
    Created,
    RefundCard,
)
from examples.shop.orders import CancelOrder, ConfirmOrder, CreateOrder, orders
from saga_engine import Participant, Rejected
from saga_engine.events import handle_in

shop = Participant("shop", database=database_url())
bank = Participant("bank")


@shop.command("shop.create-order")
async def create(command: Checkout, tx: AsyncConnection) -> Created:
    create_order = CreateOrder(
        customer=command.customer,
        items=command.items,
        created_at=await tx.scalar(select(func.now())),
    )
    done = await handle_in(tx, orders, command.order_id, create_order)
    return Created(total=done.state.total)


@shop.compensation("shop.cancel-order", of="shop.create-order")
async def cancel(command: Cancel, tx: AsyncConnection) -> None:
    await handle_in(tx, orders, command.order_id, CancelOrder(reason="the checkout failed"))


@shop.command("shop.confirm-order")
async def confirm(command: Confirm, tx: AsyncConnection) -> None:
    await handle_in(tx, orders, command.order_id, ConfirmOrder(charge_id=command.charge_id))


@bank.command("card.charge")
async def charge(command: ChargeCard) -> Charge:
    if command.card == "declined":
        raise Rejected("card_declined", "The bank declined the card.")
    return Charge(charge_id=f"c-{command.order_id}")


@bank.compensation("card.refund", of="card.charge")
async def refund(command: RefundCard) -> None:
    print(f"card of order {command.order_id} refunded")
