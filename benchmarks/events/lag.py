"""
The lag of a reader: how long after its commit an event is applied, or published and confirmed.

The cases `lag` and `lag-in-rebuild` are of a read model, to which 2,000 events a second are
appended; in `lag-in-rebuild` other tables are filled from the first of many events meanwhile,
beside the live ones.

Every 10 ms an append of 20 events begins, whether or not the one before it has ended. A lag is the
time from the answer of an append to the first look, of one every 5 ms, that finds its last event
passed.
"""

import asyncio
import time
from collections.abc import Mapping
from heapq import heappop, heappush
from itertools import count, islice

from benchmarks.events import orders
from benchmarks.events.event_database import EventDatabase, start_event_database
from benchmarks.events.rebuilds import REBUILDS
from benchmarks.events.running_reader import RunningReader, cpu_per_event, run_reader
from saga_engine.events import Events
from saga_engine.settings import Settings

EVENTS_PER_SECOND = 2_000
EVENTS_PER_APPEND = 20
POLL_SECONDS = 0.005

APPEND_TIMEOUT = 60.0
"""Seconds. Appends begin at their times, so on a busy machine many may wait for a connection."""


async def measure(events: int, stored: int = 0) -> Mapping[str, object]:
    """
    Append *events* events beside a projector of the read model with folded changes.

    Args:
        events: how many.
        stored: events that are stored and applied before; if there are any, the projection is
            rebuilt meanwhile.
    """
    rebuild = REBUILDS[0]
    async with start_event_database() as database:
        await database.create_tables(rebuild.metadata)
        await orders.fill(database, stored)
        async with run_reader(database, rebuild.reader) as projector:
            await projector.wait_for(stored)
            if stored:
                await database.run_command("projections", "rebuild", rebuild.projection.name)
            figures = await measure_lag(database, projector, stored, events)
            is_rebuilt = await _is_rebuilt(database, rebuild.projection.name, stored)
    if not stored:
        return {"case": "lag", **figures}
    return {"case": "lag-in-rebuild", "rebuild_finished": is_rebuilt, **figures}


async def measure_lag(
    database: EventDatabase,
    reader: RunningReader,
    first_order: int,
    events: int,
    events_per_second: int = EVENTS_PER_SECOND,
) -> Mapping[str, object]:
    """
    Append *events* events beside a reader, and measure its lag.

    Args:
        database: which they are appended to.
        reader: has passed every event that is stored.
        first_order: the number from which on no order is stored.
        events: how many.
        events_per_second: the rate.
    """
    watch = LagWatch(reader)
    settings = Settings(database_transaction_timeout=APPEND_TIMEOUT)
    async with Events(database.url, settings=settings) as store:
        before, started_at = reader.cpu_seconds(), time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch.run())
            await _append(store, watch, count(first_order), events, events_per_second)
            watch.finish()
        seconds, after = time.perf_counter() - started_at, reader.cpu_seconds()
    return {
        "events": events,
        "events_per_s": round(events / seconds),
        **{f"p{each}_ms": round(watch.percentile(each) * 1000, 1) for each in (50, 99, 100)},
        "cpu_us_per_event": cpu_per_event(before, after, events),
    }


async def _append(
    store: Events, watch: "LagWatch", numbers: "count[int]", events: int, events_per_second: int
) -> None:
    new_orders = map(orders.new_order, numbers)

    async def append() -> None:
        done = await store.append(*islice(new_orders, EVENTS_PER_APPEND // 2))
        watch.committed(done.position)

    started_at = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(events // EVENTS_PER_APPEND):
            due_at = started_at + number * EVENTS_PER_APPEND / events_per_second
            await asyncio.sleep(due_at - time.perf_counter())
            tasks.create_task(append())


class LagWatch:
    """Looks at the position of a reader, and notes how late it passes each append."""

    def __init__(self, reader: RunningReader) -> None:
        self._reader = reader
        self._waiting: list[tuple[int, float]] = []
        self._lags: list[float] = []
        self._finished = False

    def committed(self, position: int) -> None:
        """Note that an append was committed now, whose last event has *position*."""
        heappush(self._waiting, (position, time.perf_counter()))

    def finish(self) -> None:
        """Let `run` end when everything is passed."""
        self._finished = True

    async def run(self) -> None:
        """Look until everything that was committed is passed, after `finish`."""
        while self._waiting or not self._finished:
            passed = await self._reader.position()
            now = time.perf_counter()
            while self._waiting and self._waiting[0][0] <= passed:
                self._lags.append(now - heappop(self._waiting)[1])
            await asyncio.sleep(POLL_SECONDS)

    def percentile(self, percent: int) -> float:
        """The lag in seconds that *percent* percent of the appends do not exceed."""
        ordered = sorted(self._lags)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def _is_rebuilt(database: EventDatabase, projection: str, position: int) -> bool:
    """Whether the other tables have reached *position*."""
    connection = await database.connect()
    try:
        return bool(await connection.fetchval(_IS_REBUILT, projection, position))
    finally:
        await connection.close()


_IS_REBUILT = """
SELECT EXISTS (SELECT FROM saga_engine.projection
    WHERE name = $1 AND role = 'rebuild' AND position >= $2)"""
