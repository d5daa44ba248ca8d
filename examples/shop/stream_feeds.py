"""The same events in a stream of RabbitMQ; needs its plugin, and `saga-engine[streams]`."""

from datetime import timedelta

from examples.shop.orders import OrderCancelled, OrderConfirmed, OrderCreated
from saga_engine.events import Feed

stream_feed = Feed("shop-stream", types=[OrderCreated, OrderConfirmed, OrderCancelled])
stream_feed.to_stream("shop-orders", partitions=10, max_age=timedelta(days=7))
