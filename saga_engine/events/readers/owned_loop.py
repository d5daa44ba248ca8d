"""
The loop of something that one process runs at a time: a projection, a feed.

A process takes the lease and follows the events. An error of the database ends a turn. The next one
starts from the checkpoint that is stored, so nothing has to be known of a commit whose answer was
lost.
"""

import asyncio
import os
import secrets
import socket
from dataclasses import dataclass
from typing import Protocol

from saga_engine.backoff import Backoff
from saga_engine.errors import StoreError, StoreLockTimeout, StoreUnavailable
from saga_engine.events.readers.horizon_watch import HorizonWatch
from saga_engine.events.readers.turns import Turn
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable, InternalErrorCaught, Observer
from saga_engine.telemetry.events.emitter import describe_error
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event

MAX_RETRY_DELAY = 5.0
"""The longest backoff, in seconds: how late it is noticed that the database is available."""


class NotOwner(Exception):
    """It is at another position, paused or stopped: another process has changed it."""


class Owned(Protocol):
    """What one process runs at a time."""

    async def acquire(self) -> bool:
        """Take the lease; False when another process has it, or there is nothing to do."""

    async def follow(self, stop: asyncio.Event) -> None:
        """Follow the events until *stop* is set or the lease is lost; NotOwner also ends it."""

    def turn_failed(self) -> None:
        """Note that a turn has ended with an error, before the next one."""


@dataclass(frozen=True, slots=True)
class OwnedLoop:
    """
    Runs what this process may own.

    Args:
        operation: names it in telemetry events.
        settings: the lease, and how often to look.
        emit: takes telemetry events.
    """

    operation: Operation
    settings: Settings
    emit: Observer

    async def run(self, owned: Owned, stop: asyncio.Event, turn: Turn | None = None) -> None:
        """
        Run it until *stop* is set, whenever this process can be its owner.

        Args:
            owned: what is run.
            stop: ends it.
            turn: when other processes let this one be its owner; None: whenever it is free.
        """
        if turn:
            await turn.wait()
        backoff = Backoff(self.settings.event_poll_interval_max, MAX_RETRY_DELAY)
        failures = 0
        while not stop.is_set():
            try:
                if not await owned.acquire():
                    await self._wait(turn, stop)
                    continue
                failures = 0
                await owned.follow(turn.end if turn else stop)
                if turn and not stop.is_set():
                    await turn.hand_over()
            except NotOwner:
                continue
            except Exception as error:  # noqa: BLE001 - reported, and retried: it ends no other
                self._report(error)
                owned.turn_failed()
                failures += 1
                await wait_for_event(stop, backoff.delay(failures))

    async def _wait(self, turn: Turn | None, stop: asyncio.Event) -> None:
        if turn:
            await turn.wait()
        else:
            await wait_for_event(stop, self.settings.projection_lease / 3)

    async def watch(self, horizon: HorizonWatch, stop: asyncio.Event) -> None:
        """Watch the horizon until *stop* is set."""
        backoff = Backoff(self.settings.event_poll_interval_max, MAX_RETRY_DELAY)
        while not stop.is_set():
            try:
                await horizon.run(stop)
            except StoreError as error:
                self.report_unavailable(error)
                await wait_for_event(stop, backoff.delay(horizon.failed_looks - 1))

    def report_unavailable(self, error: StoreError) -> None:
        """Report that a statement has failed, which is tried again or not needed."""
        self.emit(DatabaseUnavailable(operation=self.operation, problem=str(error)))

    def _report(self, error: Exception) -> None:
        if isinstance(error, StoreLockTimeout):
            return
        if isinstance(error, StoreUnavailable):
            self.report_unavailable(error)
            return
        self.emit(InternalErrorCaught(operation=self.operation, problem=describe_error(error)))


def process_owner() -> str:
    """Make a name for this process as an owner, which no other process has."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
