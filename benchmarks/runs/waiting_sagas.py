"""
A saga whose runs wait for their participant, and the participant.

The timeout of its step is above an hour, so its runs do not count as load for the participant, and
any number of them is in flight (`saga_engine.worker.admission`).
"""

from datetime import timedelta

from examples.place_order.messages import PlaceOrder, Reservation
from saga_engine import Participant, Saga

waiting = Saga("waiting-order", version=1, input=PlaceOrder)


@waiting.step(command="stock.await", reply=Reservation, timeout=timedelta(hours=2), read_only=True)
def await_stock(order: PlaceOrder) -> PlaceOrder:
    return order


services = Participant("waiting-stock")


@services.command("stock.await")
async def confirm_stock(order: PlaceOrder) -> Reservation:
    return Reservation(reservation_id=order.order_id)
