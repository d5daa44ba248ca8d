"""
Limits the time of calls into an aggregate's code, in any process that handles a command.

The process is the user's, and its event loop and a transaction wait for each call. In the main
thread a call is interrupted. In other threads, and in C code that does not return to the
interpreter, it cannot be: there it is refused when it returns, so that the error names the function
and not the database, which has ended the transaction.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from saga_engine.call_time_limit import SignalTimeLimit
from saga_engine.payload.guard import UserCodeCall, UserCodeError


class CommandTimeLimit:
    """
    A CallTimeLimit for the calls of one command.

    Args:
        seconds: that one call may take, the setting mapping_timeout.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._alarm = SignalTimeLimit(seconds)
        self._calls_in_progress = 0
        self._started_at = 0.0

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Interrupt calls inside the block if that is possible; it must not await anything."""
        with self._alarm.install():
            yield

    def enter(self, call: UserCodeCall) -> None:
        """Start the time of a call; a call within another counts as part of that one."""
        if not self._calls_in_progress:
            self._call = call
            self._started_at = time.monotonic()
        self._calls_in_progress += 1
        self._alarm.enter(call)

    def leave(self) -> None:
        """
        End the time of a call.

        Raises:
            UserCodeError: it took too long, and was not interrupted.
        """
        self._alarm.leave()
        self._calls_in_progress -= 1
        if self._calls_in_progress or self._alarm.has_interrupted:
            return
        seconds = time.monotonic() - self._started_at
        if seconds > self._seconds:
            text = f"took {seconds:.3g} s, and mapping_timeout allows {self._seconds:g} s"
            raise UserCodeError(self._call, text)
