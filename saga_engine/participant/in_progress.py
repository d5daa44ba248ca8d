"""
Commands that wait because another delivery of them is being executed: when each is retried.

The process that executes the other delivery may be gone, and PostgreSQL may find its session dead
only later. So the wait has a timeout, and only the last attempt of a command waits: the engine
ignores replies to earlier attempts, and waiting attempts would fill the prefetch.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from saga_engine.backoff import Backoff
from saga_engine.vocabulary import Command, Direction

MAX_RETRY_DELAY = 1.0
_BACKOFF = Backoff(0.05, MAX_RETRY_DELAY)
"""Seconds until a command is retried."""

_StepRef = tuple[str, str, Direction]


class InProgressCommands:
    """
    The commands that one process has received and not replied to.

    Args:
        wait_timeout: seconds that a command waits for another delivery of it.
    """

    def __init__(self, wait_timeout: float) -> None:
        self.wait_timeout = wait_timeout
        self._attempts: dict[_StepRef, list[int]] = {}

    @contextmanager
    def track(self, command: Command) -> Iterator["RetryWait"]:
        """Keep a command registered while the block executes it."""
        step_ref = command.run_id, command.step, command.direction
        attempts = self._attempts.setdefault(step_ref, [])
        attempts.append(command.attempt)
        try:
            yield RetryWait(attempts, command.attempt, self.wait_timeout)
        finally:
            attempts.remove(command.attempt)
            if not attempts:
                del self._attempts[step_ref]


class RetryWait:
    """
    The waiting of one command.

    `is_first_conflict` is true until another delivery was found in progress; `consumption_emitted`
    is true once telemetry has counted the command.
    """

    def __init__(self, attempts: list[int], attempt: int, wait_timeout: float) -> None:
        self._attempts = attempts
        self._attempt = attempt
        self._wait_timeout = wait_timeout
        self._deadline = 0.0
        self._retries = 0
        self.is_first_conflict = True
        self.consumption_emitted = False

    def should_give_up(self) -> bool:
        """Record that another delivery is in progress; return whether to stop waiting for it."""
        now = asyncio.get_running_loop().time()
        if self.is_first_conflict:
            self._deadline, self.is_first_conflict = now + self._wait_timeout, False
        return now >= self._deadline or self._attempt < max(self._attempts)

    def next_delay(self) -> float:
        """Seconds until the command is retried."""
        delay = _BACKOFF.delay(self._retries)
        self._retries += 1
        return delay
