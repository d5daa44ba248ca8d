"""The saga: three steps, each with its compensation."""

from datetime import timedelta

from examples.place_order.messages import (
    CancelOrder,
    Charge,
    ChargeCard,
    Confirmation,
    ConfirmOrder,
    PlaceOrder,
    RefundCard,
    ReleaseStock,
    Reservation,
    ReserveStock,
)
from saga_engine import Retry, Saga

place_order = Saga("place-order", version=1, input=PlaceOrder, deadline=timedelta(minutes=10))


@place_order.step(command="inventory.reserve", reply=Reservation)
def reserve(order: PlaceOrder) -> ReserveStock:
    return ReserveStock(order_id=order.order_id, sku=order.sku, quantity=order.quantity)


@reserve.compensation(command="inventory.release")
def release(order: PlaceOrder) -> ReleaseStock:
    return ReleaseStock(order_id=order.order_id)


@place_order.step(
    command="payment.charge",
    reply=Charge,
    timeout=timedelta(seconds=5),
    retry=Retry(attempts=3, initial=timedelta(milliseconds=200)),
)
def charge(order: PlaceOrder) -> ChargeCard:
    return ChargeCard(order_id=order.order_id, amount=order.amount, card=order.card)


@charge.compensation(command="payment.refund")
def refund(order: PlaceOrder) -> RefundCard:
    return RefundCard(order_id=order.order_id)


@place_order.step(command="order.confirm", reply=Confirmation)
def confirm(order: PlaceOrder, reserve: Reservation, charge: Charge) -> ConfirmOrder:
    return ConfirmOrder(
        order_id=order.order_id,
        reservation_id=reserve.reservation_id,
        charge_id=charge.charge_id,
    )


@confirm.compensation(command="order.cancel")
def cancel(order: PlaceOrder) -> CancelOrder:
    return CancelOrder(order_id=order.order_id)
