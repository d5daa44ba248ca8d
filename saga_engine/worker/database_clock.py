"""
The time of the database without asking for it: what it was last, and how long ago that is.

The database's clock is the clock of every worker. Each batch that is appended returns the time of
the database, and the monotonic clock of this process carries it on. The estimate is behind the
database by the time that the answer took, and never ahead of it, unless the database's clock was
set back in the meantime.
"""

import asyncio
from datetime import datetime, timedelta

MAX_AGE = 10.0
"""Seconds after which the database is asked again: its clock may have been set."""


class DatabaseClock:
    """The database's time as it was observed last, carried on by the clock of the event loop."""

    def __init__(self) -> None:
        self._observed: datetime | None = None
        self._observed_at = 0.0

    def observe(self, now: datetime) -> datetime:
        """
        Take over the time that the database has just returned.

        An answer that took long does not set the clock back; a clock that was set back does.
        """
        estimate = self.now
        if estimate is not None and timedelta() < estimate - now < timedelta(seconds=MAX_AGE):
            return estimate
        self._observed = now
        self._observed_at = asyncio.get_running_loop().time()
        return now

    def forget(self) -> None:
        """Ask the database next time: it may be another server."""
        self._observed = None

    @property
    def now(self) -> datetime | None:
        """The time of the database; None if it has to be asked."""
        age = asyncio.get_running_loop().time() - self._observed_at
        if self._observed is None or age > MAX_AGE:
            return None
        return self._observed + timedelta(seconds=age)
