"""
A process that can die at any point: everything it does to the world outside goes through here.

Dying is sudden. Its transactions are undone, its deliveries go back to their queues, and whatever
its code still does while it is being unwound reaches nobody.
"""

import asyncio
from collections.abc import Callable
from random import Random

from simulation.faults import Fault, Faults, Kind, Point

PAUSES = 0.3
"""How many of the points take time, so that others come in between."""

LATENCY = 0.004
"""Seconds such a point takes at the most."""


class Process:
    """
    One life of a worker, a participant or a client; `stop` is set when it is told to end.

    Args:
        mortal: whether faults kill it.
    """

    def __init__(self, name: str, faults: Faults, dice: Random, *, mortal: bool = True) -> None:
        self.name = name
        self.faults = faults
        self.alive = True
        self.stop = asyncio.Event()
        self.down = 0.0
        self._dice = dice
        self._mortal = mortal
        self._endings: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    def begin(self, task: asyncio.Task[None]) -> None:
        """Its life is that task."""
        self._task = task

    def at_end(self, ending: Callable[[], None]) -> None:
        """Have *ending* called when it dies or has ended."""
        self._endings.append(ending)

    async def reach(self, point: Point) -> Fault | None:
        """
        Come to a point, which may take time; the fault that strikes there and is not its death.

        Raises:
            CancelledError: it is dead.
        """
        self.check()
        if self._dice.random() < PAUSES:
            await asyncio.sleep(self._dice.random() * LATENCY)
            self.check()
        return self.strike(point)

    def strike(self, point: Point) -> Fault | None:
        """As `reach`, at once."""
        fault = self.faults.at(point)
        if fault is not None and fault.kind is Kind.CRASH:
            self.die(fault)
        if fault is not None and fault.kind is Kind.STOP:
            self.stop.set()
            return None
        return fault

    def die(self, fault: Fault) -> None:
        """
        End at once, to come back after the fault's seconds.

        Raises:
            CancelledError: unless it is immortal.
        """
        if not self._mortal:
            return
        self.down = fault.seconds
        self.alive = False
        self.close()
        if self._task is not None:
            self._task.cancel()
        self.check()

    def close(self) -> None:
        """Close its connections: its transactions are undone, and its deliveries come back."""
        endings, self._endings = self._endings, []
        for ending in endings:
            ending()

    def check(self) -> None:
        """Raise CancelledError when it is dead."""
        if not self.alive:
            raise asyncio.CancelledError
