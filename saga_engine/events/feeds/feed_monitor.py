"""
Measures the lag of feeds, and notices those that do not move.

A feed is healthy when it is stored and its position moves or equals the horizon, or while it waits
for its sink: that it is unreachable is a problem of the connection, and a full queue is one of its
consumer.
"""

import asyncio

from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.feeds import feed_table, waiting_streams
from saga_engine.events.feeds.feed_publisher import FeedPublisher
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.readers.lag import read_lags
from saga_engine.events.readers.stall_detector import StallDetector
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import FeedsMeasured, Observer
from saga_engine.telemetry.operations import Operation


class FeedMonitor:
    """
    Measures the feeds of a process, and emits what it finds.

    Args:
        database: of the events and the feeds.
        publisher: of the feeds that this process declares.
        settings: what counts as a standstill.
        emit: takes telemetry events.
    """

    operation = Operation.FEED

    def __init__(
        self, database: Database, publisher: FeedPublisher, settings: Settings, emit: Observer
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._emit = emit
        self._detector = StallDetector("feed", publisher.owner, settings.projection_stall_timeout)
        self._stalled: list[str] = []

    @property
    def problem(self) -> str | None:
        """Which feeds of this process do not move, as a sentence; None: all do."""
        return "; ".join(self._stalled) or None

    async def measure(self) -> None:
        """
        Measure once.

        Raises:
            StoreError: the database is unavailable.
        """
        async with self._database.transaction() as tx:
            found = await feed_table.read(tx)
            stored = [each for each in found if each.key in self._publisher.keys]
            horizon, lags = await read_lags(tx, await EventLog.load(tx), stored)
            numbers = await waiting_streams.read_numbers(tx)
        waiting = self._publisher.waiting_for_sink
        now = asyncio.get_running_loop().time()
        missing = self._publisher.keys.difference(each.key for each in stored)
        unmoved = self._detector.find(stored, horizon, now, waiting)
        self._stalled = [*map(_missing_problem, sorted(missing)), *unmoved]
        self._emit(
            FeedsMeasured(
                lag_events={_series(each.stored.key): each.lag_events for each in lags},
                lag_s={_series(each.stored.key): each.lag_seconds for each in lags},
                states={_series(each.stored.key): str(each.stored.state) for each in lags},
                waiting_for_sink=tuple(map(_series, sorted(waiting))),
                waiting_streams={_series(key): each.streams for key, each in numbers.items()},
            )
        )


def _series(key: FeedKey) -> tuple[str, str]:
    return key.name, key.sink.value


def _missing_problem(key: FeedKey) -> str:
    return (
        f"feed {key} is no longer in the database: its row was deleted. To run it again, restart"
        " the projector"
    )
