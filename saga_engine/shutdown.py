"""
How the `shutdown_timeout` setting is divided, so that a process has ended when it is over.

Every wait of a shutdown ends at one of these moments: the work in hand, the closing of connections,
the last lines of the log, and the overseer beside the process.
"""

from dataclasses import dataclass

SHUTDOWN_RESERVE = 5.0
"""
Seconds of `shutdown_timeout` that are kept for what follows the work; half of it when it is short.
"""

WATCHDOG_MARGIN = 1.0
"""
Seconds after `shutdown_timeout` by which a process is gone that even its overseer has to end: the
overseer looks four times a second, and gives a signal half a second to have its effect.
"""


@dataclass(frozen=True, slots=True)
class ShutdownSchedule:
    """
    The moments of one shutdown, in seconds after the first signal.

    Args:
        seconds: the setting.
    """

    shutdown_timeout: float

    @property
    def reserve(self) -> float:
        """Seconds between the end of the work and the end of it all."""
        return min(SHUTDOWN_RESERVE, self.shutdown_timeout / 2)

    @property
    def work_deadline(self) -> float:
        """Until then what is in hand is finished; after it the rest is cancelled."""
        return self.shutdown_timeout - self.reserve

    @property
    def handler_grace_period(self) -> float:
        """Seconds, not a moment: what a handler that is cancelled then may take to end."""
        return self.reserve * 0.3

    @property
    def suspect_recording_at(self) -> float:
        """From then on the overseer records a call that goes on, and ends the process."""
        return self.shutdown_timeout - self.reserve * 0.8

    @property
    def suspect_recording_deadline(self) -> float:
        """Until then the overseer waits for PostgreSQL."""
        return self.shutdown_timeout - self.reserve * 0.4

    @property
    def close_deadline(self) -> float:
        """Until then connections are closed, and the overseer has written its line."""
        return self.shutdown_timeout - self.reserve * 0.2

    @property
    def exit_deadline(self) -> float:
        """The process ends itself, after it has written its last lines since `left`."""
        return self.shutdown_timeout - self.reserve * 0.1
