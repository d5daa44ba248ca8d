"""
A process that can crash or stand still at any point; each of its effects passes one.

A crash is immediate: the transactions of the process are rolled back, its deliveries are requeued,
and what its code does while it unwinds has no effect. While a process stands still, none of its
tasks has an effect, and its connections stay open.
"""

import asyncio
from collections.abc import Callable
from random import Random

from simulation.faults import Fault, FaultInjector, FaultKind, FaultPoint

PAUSE_SHARE = 0.3
"""The share of points that take time, so that other processes run in between."""

MAX_PAUSE_S = 0.004
"""The longest pause at a point in seconds."""


class SimulatedProcess:
    """
    One process from its start to its end; `stop` is set for a graceful shutdown.

    Args:
        can_crash: whether faults can crash it, or let it stand still.
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
        self._freeze_callbacks: list[Callable[[float], None]] = []
        self._moves = asyncio.Event()
        self._moves.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether the process stands still."""
        return not self._moves.is_set()

    def attach_task(self, task: asyncio.Task[None]) -> None:
        """Set the task that a crash cancels."""
        self._task = task

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the process crashes or ends."""
        self._exit_callbacks.append(callback)

    def on_freeze(self, callback: Callable[[float], None]) -> None:
        """Call `callback` with the seconds for which the process stands still, at their start."""
        self._freeze_callbacks.append(callback)

    async def pass_point(self, point: FaultPoint) -> Fault | None:
        """
        Pass a point, which may take time; return the fault that happens to what follows it.

        Raises:
            CancelledError: the process crashed.
        """
        self.raise_if_crashed()
        if self._rng.random() < PAUSE_SHARE:
            await asyncio.sleep(self._rng.random() * MAX_PAUSE_S)
        await self._wait_while_frozen()
        fault = self.pass_point_now(point)
        if fault is None or fault.kind is not FaultKind.FREEZE:
            return fault
        if self._can_crash:
            self._freeze(fault.seconds)
            await self._wait_while_frozen()
        return None

    def pass_point_now(self, point: FaultPoint) -> Fault | None:
        """As `pass_point`, but without a pause."""
        fault = self.faults.pass_point(point)
        if fault is not None and fault.kind is FaultKind.CRASH:
            self.crash(fault)
        if fault is not None and fault.kind is FaultKind.SHUTDOWN:
            self.stop.set()
            return None
        return fault

    def _freeze(self, seconds: float) -> None:
        self._moves.clear()
        asyncio.get_running_loop().call_later(seconds, self._moves.set)
        for callback in self._freeze_callbacks:
            callback(seconds)

    async def _wait_while_frozen(self) -> None:
        """
        Wait while the process stands still.

        Raises:
            CancelledError: the process crashed.
        """
        while not self._moves.is_set():  # another task can let it stand still again at once
            await self._moves.wait()
        self.raise_if_crashed()

    def crash(self, fault: Fault) -> None:
        """
        Crash; the supervisor restarts the process after the fault's seconds.

        Raises:
            CancelledError: the process crashed. A process that cannot crash continues.
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
        """Close the connections: transactions are rolled back, deliveries are requeued."""
        callbacks, self._exit_callbacks = self._exit_callbacks, []
        for callback in callbacks:
            callback()

    def raise_if_crashed(self) -> None:
        """Raise CancelledError after a crash."""
        if not self.alive:
            raise asyncio.CancelledError
