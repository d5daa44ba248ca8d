"""
An outage of a participant's database: found by a command, ended by a look that finds it there.

Meanwhile no command of the participant is begun. What the broker has delivered is kept, up to the
prefetch, and not returned: what is returned too often becomes a dead letter.
"""

import asyncio

from saga_engine.participant.database import Database
from saga_engine.telemetry.events import DatabaseRecovered, DatabaseTroubled, Observer

OPERATION = "participant"


class Away(Exception):
    """The database is away, and nothing of the command has been done: it waits for its turn."""


class Outage:
    """
    Whether the database of one participant is away; `problem` says why, and is empty when not.

    Args:
        interval: seconds between two looks.
    """

    def __init__(self, database: Database, interval: float, tell: Observer) -> None:
        self.problem = ""
        self._database = database
        self._interval = interval
        self._tell = tell
        self._began = 0.0
        self._found = asyncio.Event()
        self._over = asyncio.Event()
        self._over.set()

    def begin(self, error: BaseException) -> None:
        """Report an outage by an error; only its first report counts."""
        if self.problem:
            return
        problem = self.problem = self.problem_of(error)
        self._began = asyncio.get_running_loop().time()
        self._over.clear()
        self._found.set()
        self._tell(DatabaseTroubled(operation=OPERATION, problem=problem))

    def problem_of(self, error: BaseException) -> str:
        """Say in a sentence what an error of the database is, without its text."""
        return self._database.problem_of(error)

    async def wait(self, seconds: float) -> None:
        """Wait until it is over, for so many seconds at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            pass  # the caller looks again

    async def run(self) -> None:
        """Look whether an outage is over, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._found.wait()
            await asyncio.sleep(self._interval)
            if problem := await self._database.problem():
                self.problem = problem
                continue
            self.problem = ""
            self._found.clear()
            self._over.set()
            seconds = loop.time() - self._began
            self._tell(DatabaseRecovered(operation=OPERATION, outage_s=seconds))
