"""
An outage of a participant's database: detected by a command, ended by a successful probe.

During the outage the participant starts no command. Deliveries are kept, up to the prefetch, and
not returned to the broker: RabbitMQ dead-letters messages that are returned too often.
"""

import asyncio

from saga_engine.participant.database import ParticipantDatabase
from saga_engine.telemetry.events import DatabaseRecovered, DatabaseUnavailable, Observer
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event


class CommandDeferred(Exception):
    """The database is unavailable and the command has had no effect: it must be retried."""


class OutageMonitor:
    """
    Whether the database of one participant is available; if not, `problem` says why.

    Args:
        database: the database to probe.
        probe_interval: seconds between two probes.
        emit: receives telemetry.
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
        """Start an outage because of an error; further reports during the outage are ignored."""
        if self.problem:
            return
        problem = self.problem = self.describe_error(error)
        self._started_at = asyncio.get_running_loop().time()
        self._outage_ended.clear()
        self._outage_started.set()
        self._emit(DatabaseUnavailable(operation=Operation.PARTICIPANT, problem=problem))

    def describe_error(self, error: BaseException) -> str:
        """Describe an error of the database in a sentence, without the text of the error."""
        return self._database.describe_error(error)

    async def wait_until_over(self, seconds: float) -> None:
        """Wait until the outage is over, for a limited number of seconds."""
        await wait_for_event(self._outage_ended, seconds)

    async def run(self) -> None:
        """Probe the database during outages, until cancelled."""
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
