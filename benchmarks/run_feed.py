"""The feed that `benchmarks.compare` runs: the journals of all runs."""

from saga_engine.events import Feed

run_feed = Feed("runs", streams=["run-*"])
run_feed.to_exchange()
