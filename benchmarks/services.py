"""
The place-order services without business logic, so that the figures are the engine's.

If PLACE_ORDER_DATABASE_URL is set, each command goes through the barrier in a transaction; if
PLACE_ORDER_BATCH is set as well, commands that arrive together share one:

    PLACE_ORDER_BATCH=1 make bench BENCH="runs --case barrier"
"""

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
from saga_engine import Participant, Rejected

DATABASE_URL = os.environ.get("PLACE_ORDER_DATABASE_URL") or None
BATCH = DATABASE_URL is not None and bool(os.environ.get("PLACE_ORDER_BATCH"))

services = Participant("place-order", database=DATABASE_URL, batch=BATCH)


@services.command("inventory.reserve")
async def reserve(command: ReserveStock) -> Reservation:
    return Reservation(reservation_id=command.order_id)


@services.compensation("inventory.release", of="inventory.reserve")
async def release(command: ReleaseStock) -> None: ...


@services.command("payment.charge")
async def charge(command: ChargeCard) -> Charge:
    late = "!" if command.card == "declined-late" else ""
    return Charge(charge_id=command.order_id + late)


@services.compensation("payment.refund", of="payment.charge")
async def refund(command: RefundCard) -> None: ...


@services.command("order.confirm")
async def confirm(command: ConfirmOrder) -> Confirmation:
    if command.charge_id.endswith("!"):
        raise Rejected("closed", "The shop is closed.")
    return Confirmation(order_id=command.order_id)


@services.compensation("order.cancel", of="order.confirm")
async def cancel(command: CancelOrder) -> None: ...
