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

from saga_engine.protocol.command import Command
from saga_engine.vocabulary import Direction

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds until a command is tried again: doubling, up to the longest."""

_Place = tuple[UUID, str, Direction]


class Waiting:
    """
    The commands that one process has taken and not answered.

    Args:
        patience: seconds after which one is given up.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._attempts: dict[_Place, list[int]] = {}

    @contextmanager
    def of(self, command: Command) -> Iterator["Wait"]:
        """Surround all that is tried with a command."""
        place = command.run_id, command.step, command.direction
        attempts = self._attempts.setdefault(place, [])
        attempts.append(command.attempt)
        try:
            yield Wait(attempts, command.attempt, self.patience)
        finally:
            attempts.remove(command.attempt)
            if not attempts:
                del self._attempts[place]


class Wait:
    """
    One command's waiting.

    `begins` until it has met another delivery for the first time, `counted` once it had a turn.
    """

    def __init__(self, attempts: list[int], attempt: int, patience: float) -> None:
        self._attempts = attempts
        self._attempt = attempt
        self._patience = patience
        self._until = 0.0
        self._pause = FIRST_PAUSE / 2
        self.begins = True
        self.counted = False

    def is_over(self) -> bool:
        """Note that another delivery has it in hand; whether to wait for that no longer."""
        now = asyncio.get_running_loop().time()
        if self.begins:
            self._until, self.begins = now + self._patience, False
        return now >= self._until or self._attempt < max(self._attempts)

    def pause(self) -> float:
        """Seconds until it is tried again."""
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        return self._pause
