"""Waiting for events with a time limit."""

import asyncio
from collections.abc import Iterable


async def wait_for_event(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for `event`, for at most `seconds` (None: without a limit); return whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def wait_for_any(events: Iterable[asyncio.Event], seconds: float | None) -> None:
    """Wait until one of some events is set, for at most `seconds` (None: without a limit)."""
    async with asyncio.TaskGroup() as tasks:
        waits = [tasks.create_task(each.wait()) for each in events]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
