"""How long one task computes before it yields to the event loop, on which all others wait."""

import asyncio

SLICE_SECONDS = 0.01
"""Seconds; a yield costs some microseconds, so that this costs next to nothing."""


class Timeslice:
    """
    The time of one task since it last yielded.

    It goes by the clock of the event loop. In a simulation that stands still while code runs, so
    there it never yields, and what happens does not depend on the speed of the machine.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()

    async def yield_if_over(self) -> None:
        """Yield once, if the time is over."""
        if self._loop.time() - self._started_at >= SLICE_SECONDS:
            await asyncio.sleep(0)
            self._started_at = self._loop.time()
