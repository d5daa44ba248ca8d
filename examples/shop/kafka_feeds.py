"""
The same events in a topic of Kafka, in Avro; needs `saga-engine[kafka,avro]`.

With a single server, set SAGA_ENGINE_KAFKA_REPLICATION=1. The feed then creates its topic with one
replica, and `saga-engine feeds show shop-kafka` has the difference from what is declared here.

A projector registers the schemas of these events when it starts. That of version 1 of order-created
is registered by `saga-engine schemas register examples.shop.first_version`.
"""

from datetime import timedelta

from examples.shop.orders import OrderCancelled, OrderConfirmed, OrderCreated
from saga_engine.events import Feed

kafka_feed = Feed("shop-kafka", types=[OrderCreated, OrderConfirmed, OrderCancelled])
kafka_feed.to_kafka(
    "shop-orders",
    partitions=10,
    replication=3,
    retention=timedelta(days=7),
    compression="snappy",
    max_message_bytes=1_048_576,
    encoding="avro",
)
