"""Slow place-order participants: each command takes a while."""

import asyncio
import os

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
from saga_engine import Participant

HANDLER_SECONDS = float(os.environ.get("SLOW_SECONDS", "0.005"))

inventory = Participant("inventory")
payments = Participant("payments")
orders = Participant("orders")


@inventory.command("inventory.reserve")
async def reserve(command: ReserveStock) -> Reservation:
    await asyncio.sleep(HANDLER_SECONDS)
    return Reservation(reservation_id=command.order_id)


@inventory.compensation("inventory.release", of="inventory.reserve")
async def release(command: ReleaseStock) -> None: ...


@payments.command("payment.charge")
async def charge(command: ChargeCard) -> Charge:
    await asyncio.sleep(HANDLER_SECONDS)
    return Charge(charge_id=command.order_id)


@payments.compensation("payment.refund", of="payment.charge")
async def refund(command: RefundCard) -> None: ...


@orders.command("order.confirm")
async def confirm(command: ConfirmOrder) -> Confirmation:
    await asyncio.sleep(HANDLER_SECONDS)
    return Confirmation(order_id=command.order_id)


@orders.compensation("order.cancel", of="order.confirm")
async def cancel(command: CancelOrder) -> None: ...
