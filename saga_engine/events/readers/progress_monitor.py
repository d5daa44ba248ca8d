"""
Measures periodically how far the projections and feeds of a process are.

It reads what is stored, not what the loops of this process believe: a loop that has ended, or waits
without end, is visible.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from saga_engine.errors import StoreError
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable, InternalErrorCaught, Observer
from saga_engine.telemetry.events.emitter import describe_error
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event


class Measured(Protocol):
    """What is measured periodically."""

    @property
    def operation(self) -> Operation:
        """Names it in telemetry events."""

    async def measure(self) -> None:
        """Measure once; StoreError when the database is unavailable."""


class ProgressMonitor:
    """
    Measures until the process stops.

    Args:
        measured: one after the other.
        settings: how often.
        emit: takes telemetry events.
    """

    def __init__(self, measured: Sequence[Measured], settings: Settings, emit: Observer) -> None:
        self._measured = measured
        self._settings = settings
        self._emit = emit

    async def run(self, stop: asyncio.Event) -> None:
        """Measure until *stop* is set."""
        while not stop.is_set():
            for each in self._measured:
                try:
                    await each.measure()
                except StoreError as error:
                    self._emit(DatabaseUnavailable(operation=each.operation, problem=str(error)))
                except Exception as error:  # noqa: BLE001 - reported: it ends no process
                    problem = describe_error(error)
                    self._emit(InternalErrorCaught(operation=each.operation, problem=problem))
            await wait_for_event(stop, self._settings.projection_monitor_interval)
