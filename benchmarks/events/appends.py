"""
The cases `append`: orders are stored by four tasks, in transactions of 50 and of 1,000 events.

Each order has a stream of its own, so an append is one of 25 or 500 streams that must not exist.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from itertools import count, islice

from benchmarks.events import orders
from benchmarks.events.event_database import start_event_database
from benchmarks.processes import cpu_seconds
from saga_engine.events import Append, Events
from saga_engine.settings import Settings

BATCHES = (50, 1_000)
WRITERS = 4
EVENTS_PER_ORDER = 2


async def measure(batch: int, events: int) -> Mapping[str, object]:
    """Append *events* events, *batch* in each transaction, on one connection for each writer."""
    appends = map(orders.new_order, count())
    settings = Settings(database_pool_size=WRITERS)
    async with (
        start_event_database() as database,
        Events(database.url, settings=settings) as store,
    ):
        await _append(store, appends, batch, WRITERS * batch)  # the connections and statements
        cpu_before = cpu_seconds(database.pid)
        started_at, own_before = time.perf_counter(), time.process_time()
        await _append(store, appends, batch, events)
        seconds, own = time.perf_counter() - started_at, time.process_time() - own_before
        of_server = cpu_seconds(database.pid) - cpu_before
    return {
        "case": f"append-{batch}",
        "events": events,
        "events_per_s": round(events / seconds),
        "cpu_us_per_event": {
            "client": round(own * 1e6 / events, 1),
            "postgresql": round(of_server * 1e6 / events, 1),
        },
    }


async def _append(store: Events, appends: Iterator[Append], batch: int, events: int) -> None:
    remaining = iter(range(events // batch))

    async def write() -> None:
        for _ in remaining:
            await store.append(*islice(appends, batch // EVENTS_PER_ORDER))

    async with asyncio.TaskGroup() as writers:
        for _ in range(WRITERS):
            writers.create_task(write())
