"""
A process that can die at any point: everything it does to the world outside goes through here.

Dying is sudden. Its transactions are undone, its deliveries go back to their queues, and whatever
its code still does while it is being unwound reaches nobody.
"""

import asyncio
from collections.abc import Callable
from random import Random

from simulation.faults import Fault, FaultInjector, FaultKind, FaultPoint

PAUSE_SHARE = 0.3
"""How many of the points take time, so that others come in between."""

MAX_PAUSE_S = 0.004
"""Seconds such a point takes at the most."""


class SimulatedProcess:
    """
    One life of a worker, a participant or a client; `stop` is set when it is told to end.

    Args:
        mortal: whether faults kill it.
    """

    def __init__(
        self, name: str, faults: FaultInjector, rng: Random, *, can_crash: bool = True
    ) -> None:
        self.name = name
        self.faults = faults
        self.alive = True
        self.stop = asyncio.Event()
        self.downtime = 0.0
        self._rng = rng
        self._can_crash = can_crash
        self._exit_callbacks: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    def attach_task(self, task: asyncio.Task[None]) -> None:
        """Its life is that task."""
        self._task = task

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Have *ending* called when it dies or has ended."""
        self._exit_callbacks.append(callback)

    async def pass_point(self, point: FaultPoint) -> Fault | None:
        """
        Come to a point, which may take time; the fault that strikes there and is not its death.

        Raises:
            CancelledError: it is dead.
        """
        self.raise_if_crashed()
        if self._rng.random() < PAUSE_SHARE:
            await asyncio.sleep(self._rng.random() * MAX_PAUSE_S)
            self.raise_if_crashed()
        return self.pass_point_now(point)

    def pass_point_now(self, point: FaultPoint) -> Fault | None:
        """As `reach`, at once."""
        fault = self.faults.pass_point(point)
        if fault is not None and fault.kind is FaultKind.CRASH:
            self.crash(fault)
        if fault is not None and fault.kind is FaultKind.SHUTDOWN:
            self.stop.set()
            return None
        return fault

    def crash(self, fault: Fault) -> None:
        """
        End at once, to come back after the fault's seconds.

        Raises:
            CancelledError: unless it is immortal.
        """
        if not self._can_crash:
            return
        self.downtime = fault.seconds
        self.alive = False
        self.close()
        if self._task is not None:
            self._task.cancel()
        self.raise_if_crashed()

    def close(self) -> None:
        """Close its connections: its transactions are undone, and its deliveries come back."""
        callbacks, self._exit_callbacks = self._exit_callbacks, []
        for callback in callbacks:
            callback()

    def raise_if_crashed(self) -> None:
        """Raise CancelledError when it is dead."""
        if not self.alive:
            raise asyncio.CancelledError
