"""Limits how long one task computes before it yields to the event loop."""

import asyncio

SLICE_SECONDS = 0.01
"""Seconds between two yields. A yield takes some microseconds, so the overhead is negligible."""


class Timeslice:
    """
    The time since one task last yielded.

    It uses the clock of the event loop. In a simulation that clock stops while code runs, so the
    task never yields there and the simulation does not depend on the speed of the machine.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()

    async def yield_if_over(self) -> None:
        """Yield once, if the timeslice is over."""
        if self._loop.time() - self._started_at >= SLICE_SECONDS:
            await asyncio.sleep(0)
            self._started_at = self._loop.time()
