"""
How `shutdown_timeout` is divided, so that a process has ended when it is over.

Every wait of a shutdown ends at one of these deadlines: the work in progress, the closing of
connections, the last lines of the log, and the watchdog process.
"""

from dataclasses import dataclass

SHUTDOWN_RESERVE = 5.0
"""
Seconds of `shutdown_timeout` that are reserved for the steps after the work; at most half of it.
"""

WATCHDOG_MARGIN = 1.0
"""
Seconds after `shutdown_timeout` by which a process has ended that its watchdog must kill. The
watchdog checks it four times a second, and waits half a second after a signal.
"""


@dataclass(frozen=True, slots=True)
class ShutdownSchedule:
    """
    The deadlines of one shutdown, in seconds after the first signal.

    Args:
        shutdown_timeout: the setting.
    """

    shutdown_timeout: float

    @property
    def reserve(self) -> float:
        """Seconds between the end of the work and the end of the process."""
        return min(SHUTDOWN_RESERVE, self.shutdown_timeout / 2)

    @property
    def work_deadline(self) -> float:
        """Until then the work in progress may finish; then it is cancelled."""
        return self.shutdown_timeout - self.reserve

    @property
    def handler_grace_period(self) -> float:
        """Seconds, not a deadline: the time that a handler has to end after its cancellation."""
        return self.reserve * 0.3

    @property
    def suspect_recording_at(self) -> float:
        """From then on the watchdog records a call that still runs, and ends the process."""
        return self.shutdown_timeout - self.reserve * 0.8

    @property
    def suspect_recording_deadline(self) -> float:
        """Until then the watchdog waits for PostgreSQL."""
        return self.shutdown_timeout - self.reserve * 0.4

    @property
    def close_deadline(self) -> float:
        """Until then connections are closed, and the watchdog has written its line."""
        return self.shutdown_timeout - self.reserve * 0.2

    @property
    def exit_deadline(self) -> float:
        """The process ends itself; since `close_deadline` it writes its last lines."""
        return self.shutdown_timeout - self.reserve * 0.1
