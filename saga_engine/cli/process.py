"""
How a process that serves is told to stop: the first SIGTERM or SIGINT drains, the second exits.

The handlers are the interpreter's and not the event loop's, so that the second signal works even
when the user's code keeps the loop busy.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def until_told(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run until *run* returns; the event it gets is set by the first signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    told = False

    def hear(number: int, _frame: FrameType | None) -> None:
        nonlocal told
        if told:
            os._exit(128 + number)
        told = True
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        await run(stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
