"""
How the seconds of the `drain` setting are divided, so that a process is gone when they are over.

Every wait of a shutdown ends at one of these moments: the work in hand, the closing of connections,
the last lines of the log, and the overseer beside the process.
"""

from dataclasses import dataclass

LEAVING = 5.0
"""Seconds of `drain` that are kept for what follows the work; half of it when it is short."""

MARGIN = 1.0
"""
Seconds after `drain` by which a process is gone that even its overseer has to end: the overseer
looks four times a second, and gives a signal half a second to have its effect.
"""


@dataclass(frozen=True, slots=True)
class Drain:
    """
    The moments of one shutdown, in seconds after the first signal.

    Args:
        seconds: the setting.
    """

    seconds: float

    @property
    def leaving(self) -> float:
        """Seconds between the end of the work and the end of it all."""
        return min(LEAVING, self.seconds / 2)

    @property
    def work(self) -> float:
        """Until then what is in hand is finished; after it the rest is cancelled."""
        return self.seconds - self.leaving

    @property
    def grace(self) -> float:
        """Seconds, not a moment: what a handler that is cancelled then may take to end."""
        return self.leaving * 0.3

    @property
    def accused(self) -> float:
        """From then on the overseer records a call that goes on, and ends the process."""
        return self.seconds - self.leaving * 0.8

    @property
    def recorded(self) -> float:
        """Until then the overseer waits for PostgreSQL."""
        return self.seconds - self.leaving * 0.4

    @property
    def left(self) -> float:
        """Until then connections are closed, and the overseer has written its line."""
        return self.seconds - self.leaving * 0.2

    @property
    def ended(self) -> float:
        """The process ends itself, after it has written its last lines since `left`."""
        return self.seconds - self.leaving * 0.1
