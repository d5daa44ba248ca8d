"""
The services: inventory, payments and orders, each a participant with its own queue.

The input decides what happens. Sku NONE is out of stock. Card "declined" is rejected, card "flaky"
fails twice and then succeeds, and card "slow" is charged, but after the last attempt has timed out.
"""

import asyncio

from sqlalchemy.ext.asyncio import AsyncConnection

from examples.place_order.effect_log import create_database_engine, record_effect
from examples.place_order.messages import (
    CancelOrder,
    Charge,
    ChargeCard,
    Confirmation,
    ConfirmOrder,
    RefundCard,
    ReleaseStock,
    Reservation,
    ReserveStock,
)
from saga_engine import CommandContext, Participant, Rejected

SLOW_CHARGE_SECONDS = 18  # longer than the three attempts of 5 s each

engine = create_database_engine()
inventory = Participant("inventory", database=engine)
payments = Participant("payments", database=engine)
orders = Participant("orders", database=engine)


@inventory.command("inventory.reserve")
async def reserve(command: ReserveStock, tx: AsyncConnection) -> Reservation:
    if command.sku == "NONE":
        raise Rejected("out_of_stock", "The item is out of stock.")
    await record_effect(tx, command.order_id, "reserve")
    return Reservation(reservation_id=f"r-{command.order_id}")


@inventory.compensation("inventory.release", of="inventory.reserve")
async def release(command: ReleaseStock, tx: AsyncConnection) -> None:
    await record_effect(tx, command.order_id, "release")


@payments.command("payment.charge")
async def charge(command: ChargeCard, tx: AsyncConnection, context: CommandContext) -> Charge:
    if command.card == "declined":
        raise Rejected("card_declined", "The bank declined the card.")
    if command.card == "flaky" and context.attempt <= 2:
        raise ConnectionError("the bank's gateway closed the connection")
    await record_effect(tx, command.order_id, "charge")
    if command.card == "slow":
        await asyncio.sleep(SLOW_CHARGE_SECONDS)
    return Charge(charge_id=f"c-{command.order_id}")


@payments.compensation("payment.refund", of="payment.charge")
async def refund(command: RefundCard, tx: AsyncConnection) -> None:
    await record_effect(tx, command.order_id, "refund")


@orders.command("order.confirm")
async def confirm(command: ConfirmOrder, tx: AsyncConnection) -> Confirmation:
    await record_effect(tx, command.order_id, "confirm")
    return Confirmation(order_id=command.order_id)


@orders.compensation("order.cancel", of="order.confirm")
async def cancel(command: CancelOrder, tx: AsyncConnection) -> None:
    await record_effect(tx, command.order_id, "cancel")
