"""Place-order, and another saga that uses the same slow participant."""

from examples.place_order.messages import PlaceOrder, ReleaseStock, Reservation, ReserveStock
from examples.place_order.sagas import place_order
from saga_engine import Saga

__all__ = ["place_order", "reservations"]

reservations = Saga("reserve-only", version=1, input=PlaceOrder)


@reservations.step(command="inventory.reserve", reply=Reservation)
def reserve(order: PlaceOrder) -> ReserveStock:
    return ReserveStock(order_id=order.order_id, sku=order.sku, quantity=order.quantity)


@reserve.compensation(command="inventory.release")
def release(order: PlaceOrder) -> ReleaseStock:
    return ReleaseStock(order_id=order.order_id)
