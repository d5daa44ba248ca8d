"""
An outage of a participant's database: found by a command, ended by a look that finds it there.

Meanwhile no command of the participant is begun. What the broker has delivered is kept, up to the
prefetch, and not returned: what is returned too often becomes a dead letter.
"""

import asyncio

from saga_engine.participant.database import ParticipantDatabase
from saga_engine.telemetry.events import DatabaseRecovered, DatabaseUnavailable, Observer
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event


class CommandDeferred(Exception):
    """The database is away, and nothing of the command has been done: it waits for its turn."""


class OutageMonitor:
    """
    Whether the database of one participant is away; `problem` says why, and is empty when not.

    Args:
        interval: seconds between two looks.
    """

    def __init__(
        self, database: ParticipantDatabase, probe_interval: float, emit: Observer
    ) -> None:
        self.problem = ""
        self._database = database
        self._probe_interval = probe_interval
        self._emit = emit
        self._started_at = 0.0
        self._outage_started = asyncio.Event()
        self._outage_ended = asyncio.Event()
        self._outage_ended.set()

    def report(self, error: BaseException) -> None:
        """Report an outage by an error; only its first report counts."""
        if self.problem:
            return
        problem = self.problem = self.describe_error(error)
        self._started_at = asyncio.get_running_loop().time()
        self._outage_ended.clear()
        self._outage_started.set()
        self._emit(DatabaseUnavailable(operation=Operation.PARTICIPANT, problem=problem))

    def describe_error(self, error: BaseException) -> str:
        """Say in a sentence what an error of the database is, without its text."""
        return self._database.describe_error(error)

    async def wait_until_over(self, seconds: float) -> None:
        """Wait until it is over, for so many seconds at most."""
        await wait_for_event(self._outage_ended, seconds)

    async def run(self) -> None:
        """Look whether an outage is over, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._outage_started.wait()
            await asyncio.sleep(self._probe_interval)
            if problem := await self._database.find_problem():
                self.problem = problem
                continue
            self.problem = ""
            self._outage_started.clear()
            self._outage_ended.set()
            duration = loop.time() - self._started_at
            self._emit(DatabaseRecovered(operation=Operation.PARTICIPANT, outage_s=duration))
