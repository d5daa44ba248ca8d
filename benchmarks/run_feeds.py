"""The feeds of runs that `benchmarks.compare` runs, one with `benchmarks.run_feeds:NAME`."""

from benchmarks.sink_servers import RECEIVER, SIGNING_KEY_VARIABLE
from saga_engine.events import Feed

RUNS = ("run-*",)

to_exchange = Feed("runs-to-exchange", streams=RUNS)
to_exchange.to_exchange()

to_stream = Feed("runs-to-stream", streams=RUNS)
to_stream.to_stream("runs", partitions=10)

to_kafka = Feed("runs-to-kafka", streams=RUNS)
to_kafka.to_kafka("runs", partitions=10, replication=1)

to_webhook = Feed("runs-to-webhook", streams=RUNS, types=["run_completed"])
"""A request for each run: a receiver does not want to know of every step."""
to_webhook.to_webhook(RECEIVER, secret=SIGNING_KEY_VARIABLE)
