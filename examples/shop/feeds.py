"""The feed of the shop: which orders are confirmed and cancelled, for programs beside it."""

from examples.shop.orders import OrderCancelled, OrderConfirmed
from saga_engine.events import Feed

decided_orders = Feed("decided-orders", types=[OrderConfirmed, OrderCancelled])
decided_orders.to_exchange()
