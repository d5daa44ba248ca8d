"""The saga: the order is created, paid and confirmed, or refunded and cancelled."""

from datetime import timedelta

from examples.shop.messages import (
    Cancel,
    Charge,
    ChargeCard,
    Checkout,
    Confirm,
    Created,
    RefundCard,
)
from saga_engine import Saga

checkout = Saga("checkout", version=1, input=Checkout, deadline=timedelta(minutes=10))


@checkout.step(command="shop.create-order", reply=Created)
def create(order: Checkout) -> Checkout:
    return order


@create.compensation(command="shop.cancel-order")
def cancel(order: Checkout) -> Cancel:
    return Cancel(order_id=order.order_id)


@checkout.step(command="card.charge", reply=Charge)
def charge(order: Checkout, create: Created) -> ChargeCard:
    return ChargeCard(order_id=order.order_id, amount=create.total, card=order.card)


@charge.compensation(command="card.refund")
def refund(order: Checkout) -> RefundCard:
    return RefundCard(order_id=order.order_id)


@checkout.step(command="shop.confirm-order", pivot=True)
def confirm(order: Checkout, charge: Charge) -> Confirm:
    return Confirm(order_id=order.order_id, charge_id=charge.charge_id)
