"""
The cases `lag` and `lag-in-rebuild`: how long after its commit an event is in a read model.

2,000 events a second are appended; in `lag-in-rebuild` while other tables are filled from the first
of many events beside the live ones.

Every 10 ms an append of 20 events begins, whether or not the one before it has ended. A lag is the
time from the answer of an append to the first look, of one every 5 ms, that finds its last event
applied.
"""

import asyncio
import time
from collections.abc import Mapping
from heapq import heappop, heappush
from itertools import count, islice

from benchmarks.events import orders
from benchmarks.events.event_database import (
    RunningProjector,
    run_projector,
    start_event_database,
)
from benchmarks.events.rebuilds import REBUILDS
from saga_engine.events import Events
from saga_engine.settings import Settings

EVENTS_PER_SECOND = 2_000
EVENTS_PER_APPEND = 20
POLL_SECONDS = 0.005


async def measure(events: int, stored: int = 0) -> Mapping[str, object]:
    """
    Append *events* events beside a projector of the read model with folded changes.

    Args:
        events: how many.
        stored: events that are stored and applied before; if there are any, the projection is
            rebuilt meanwhile.
    """
    rebuild = REBUILDS[0]
    async with (
        start_event_database() as database,
        Events(database.url, settings=Settings()) as store,
    ):
        await database.create_tables(rebuild.metadata)
        await orders.fill(database, stored)
        async with run_projector(database, rebuild.module, rebuild.projection.name) as projector:
            await projector.wait_for(stored)
            if stored:
                await projector.begin_rebuild()
            watch = LagWatch(projector)
            before, started_at = projector.cpu_seconds(), time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(watch.run())
                await _append(store, watch, stored, events // EVENTS_PER_APPEND)
                watch.finish()
            seconds, after = time.perf_counter() - started_at, projector.cpu_seconds()
            is_rebuilding = await projector.is_rebuilding(stored)
    return {
        "case": "lag-in-rebuild" if stored else "lag",
        **({"rebuild_finished": not is_rebuilding} if stored else {}),
        "events": events,
        "events_per_s": round(events / seconds),
        **{f"p{each}_ms": round(watch.percentile(each) * 1000, 1) for each in (50, 99, 100)},
        "cpu_us_per_event": {
            name: round((after[name] - before[name]) * 1e6 / events, 1) for name in before
        },
    }


async def _append(store: Events, watch: "LagWatch", first: int, appends: int) -> None:
    new_orders = map(orders.new_order, count(first))

    async def append() -> None:
        done = await store.append(*islice(new_orders, EVENTS_PER_APPEND // 2))
        watch.committed(done.position)

    started_at = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(appends):
            due_at = started_at + number * EVENTS_PER_APPEND / EVENTS_PER_SECOND
            await asyncio.sleep(due_at - time.perf_counter())
            tasks.create_task(append())


class LagWatch:
    """Looks at the position of a projection, and notes how late it passes each append."""

    def __init__(self, projector: RunningProjector) -> None:
        self._projector = projector
        self._waiting: list[tuple[int, float]] = []
        self._lags: list[float] = []
        self._finished = False

    def committed(self, position: int) -> None:
        """Note that an append was committed now, whose last event has *position*."""
        heappush(self._waiting, (position, time.perf_counter()))

    def finish(self) -> None:
        """Let `run` end when everything is applied."""
        self._finished = True

    async def run(self) -> None:
        """Look until everything that was committed is applied, after `finish`."""
        while self._waiting or not self._finished:
            applied = await self._projector.position()
            now = time.perf_counter()
            while self._waiting and self._waiting[0][0] <= applied:
                self._lags.append(now - heappop(self._waiting)[1])
            await asyncio.sleep(POLL_SECONDS)

    def percentile(self, percent: int) -> float:
        """The lag in seconds that *percent* percent of the appends do not exceed."""
        ordered = sorted(self._lags)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
