"""Orders whose charge has many attempts, and reservations without the payments participant."""

import os
from datetime import timedelta

from examples.place_order.messages import (
    Charge,
    ChargeCard,
    PlaceOrder,
    RefundCard,
    ReleaseStock,
    Reservation,
    ReserveStock,
)
from saga_engine import Retry, Saga

TIMEOUT = timedelta(seconds=float(os.environ.get("OUTAGE_TIMEOUT", "30")))
RETRY_DELAY = timedelta(seconds=float(os.environ.get("OUTAGE_PAUSE", "60")))

orders = Saga("patient-order", version=1, input=PlaceOrder)
reservations = Saga("reserve-only", version=1, input=PlaceOrder)


@orders.step(
    command="payment.charge",
    reply=Charge,
    timeout=TIMEOUT,
    retry=Retry(attempts=20, initial=RETRY_DELAY, maximum=RETRY_DELAY),
)
def charge(order: PlaceOrder) -> ChargeCard:
    return ChargeCard(order_id=order.order_id, amount=order.amount, card=order.card)


@charge.compensation(command="payment.refund")
def refund(order: PlaceOrder) -> RefundCard:
    return RefundCard(order_id=order.order_id)


@reservations.step(command="inventory.reserve", reply=Reservation)
def reserve(order: PlaceOrder) -> ReserveStock:
    return ReserveStock(order_id=order.order_id, sku=order.sku, quantity=order.quantity)


@reserve.compensation(command="inventory.release")
def release(order: PlaceOrder) -> ReleaseStock:
    return ReleaseStock(order_id=order.order_id)
