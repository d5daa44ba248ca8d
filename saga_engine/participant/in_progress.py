"""
Commands that wait for another delivery of theirs: when each is tried again, and when not any more.

Whoever has a command in hand may be gone for good, and its session found dead only later. So a
command does not wait for ever, and of the attempts of one command only the last: the engine listens
to no other, and attempts that pile up would fill the prefetch.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from saga_engine.backoff import Backoff
from saga_engine.protocol.command import Command
from saga_engine.vocabulary import Direction

MAX_RETRY_DELAY = 1.0
_BACKOFF = Backoff(0.05, MAX_RETRY_DELAY)
"""Seconds until a command is tried again."""

_StepRef = tuple[UUID, str, Direction]


class InProgressCommands:
    """
    The commands that one process has taken and not answered.

    Args:
        patience: seconds after which one is given up.
    """

    def __init__(self, wait_timeout: float) -> None:
        self.wait_timeout = wait_timeout
        self._attempts: dict[_StepRef, list[int]] = {}

    @contextmanager
    def track(self, command: Command) -> Iterator["RetryWait"]:
        """Surround all that is tried with a command."""
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
    One command's waiting.

    `begins` until it has met another delivery for the first time, `counted` once it had a turn.
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
        """Note that another delivery has it in hand; whether to wait for that no longer."""
        now = asyncio.get_running_loop().time()
        if self.is_first_conflict:
            self._deadline, self.is_first_conflict = now + self._wait_timeout, False
        return now >= self._deadline or self._attempt < max(self._attempts)

    def next_delay(self) -> float:
        """Seconds until it is tried again."""
        delay = _BACKOFF.delay(self._retries)
        self._retries += 1
        return delay
