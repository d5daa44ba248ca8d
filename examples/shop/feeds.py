"""The feed of the shop: what happens to its orders, for programs beside it."""

from examples.shop.orders import OrderCancelled, OrderConfirmed, OrderCreated
from saga_engine.events import Feed

shop_feed = Feed("shop-orders", types=[OrderCreated, OrderConfirmed, OrderCancelled])
shop_feed.to_exchange()
