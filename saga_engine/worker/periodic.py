"""
The loop that calls a periodic duty until the worker stops.

A duty returns whether it found work. After work it is called again immediately, otherwise after its
interval. An error is reported and the duty is retried with backoff, whether the database is
unavailable or the engine has a bug: one failing duty must not end the others.
"""

import asyncio
from collections.abc import Awaitable, Callable

from saga_engine.backoff import Backoff
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event

Duty = Callable[[], Awaitable[bool]]
ErrorHandler = Callable[[Operation, Exception], None]

MAX_RETRY_DELAY = 5.0
"""The longest backoff, in seconds: how late a worker notices that the database is available."""


async def run_periodically(
    operation: Operation,
    duty: Duty,
    *,
    interval: float,
    stop: asyncio.Event,
    on_error: ErrorHandler,
) -> None:
    """
    Call *duty* until *stop* is set.

    Args:
        operation: the operation that its failures are reported for.
        interval: seconds to wait after a call that found nothing to do.
    """
    backoff = Backoff(interval, MAX_RETRY_DELAY)
    failures = 0
    while not stop.is_set():
        try:
            found_work = await duty()
        except Exception as error:  # noqa: BLE001 - reported, and retried
            on_error(operation, error)
            failures += 1
            await wait_for_event(stop, backoff.delay(failures))
        else:
            failures = 0
            if not found_work:
                await wait_for_event(stop, interval)
