"""The feeds that are measured, each with one sink; a process runs one, `MODULE:NAME`."""

from benchmarks.sink_servers import RECEIVER, SIGNING_KEY_VARIABLE
from saga_engine.events import Feed

STREAMS = ("order-*",)
PARTITIONS = 10

to_exchange = Feed("orders-to-exchange", streams=STREAMS)
to_exchange.to_exchange()

to_stream = Feed("orders-to-stream", streams=STREAMS)
to_stream.to_stream("orders", partitions=1)

to_partitions = Feed("orders-to-partitions", streams=STREAMS)
to_partitions.to_stream("partitioned-orders", partitions=PARTITIONS)

to_kafka = Feed("orders-to-kafka", streams=STREAMS)
to_kafka.to_kafka("orders", partitions=PARTITIONS, replication=1)

to_kafka_in_avro = Feed("orders-to-kafka-in-avro", streams=STREAMS)
to_kafka_in_avro.to_kafka("avro-orders", partitions=PARTITIONS, replication=1, encoding="avro")

to_partitions_in_avro = Feed("orders-to-partitions-in-avro", streams=STREAMS)
to_partitions_in_avro.to_stream("avro-orders", partitions=PARTITIONS, encoding="avro")

to_webhook = Feed("orders-to-webhook", streams=STREAMS)
to_webhook.to_webhook(RECEIVER, secret=SIGNING_KEY_VARIABLE)
