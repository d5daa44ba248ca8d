"""Everything is measured, again and again, also when the database fails in between."""

import asyncio

from saga_engine.errors import StoreUnavailable
from saga_engine.events.readers.progress_monitor import ProgressMonitor
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable, InternalErrorCaught
from saga_engine.telemetry.operations import Operation
from tests.kit.events import EventRecorder


class Unavailable:
    operation = Operation.FEED

    async def measure(self):
        raise StoreUnavailable("no connection")


class Broken:
    operation = Operation.CONSUMER

    async def measure(self):
        raise KeyError("a row that was deleted meanwhile")


class Counted:
    operation = Operation.PROJECTION

    def __init__(self, stop):
        self.measured = 0
        self._stop = stop

    async def measure(self):
        self.measured += 1
        if self.measured == 3:
            self._stop.set()


async def test_a_measurement_that_fails_is_reported_and_delays_no_other():
    stop, emitted = asyncio.Event(), EventRecorder()
    counted = Counted(stop)
    settings = Settings(projection_monitor_interval=0.001)
    async with asyncio.timeout(30):
        await ProgressMonitor([Unavailable(), Broken(), counted], settings, emitted).run(stop)
    assert counted.measured == 3
    assert [each.operation for each in emitted.matching(InternalErrorCaught)] == [
        Operation.CONSUMER
    ] * 3
    assert (
        emitted.matching(DatabaseUnavailable)
        == [DatabaseUnavailable(operation=Operation.FEED, problem="no connection")] * 3
    )
