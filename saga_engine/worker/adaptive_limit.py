"""How much of what waits in PostgreSQL is taken at once."""

from collections.abc import Awaitable

from saga_engine.errors import StoreLockTimeout, StoreReadTooLarge, StoreUnavailable


class AdaptiveLimit:
    """
    How many are taken in one transaction, `size`, from 1 to *most*.

    A database that is away and one that is too slow for so much look the same. So what did not come
    through is tried again with half of it. The same for runs that together are too much to read.
    That somebody else holds a row says nothing of either.

    An eighth is added when as many as were allowed came through. Fewer, or none, do not show that
    more would: after a timeout PostgreSQL may keep the rows locked for a while, and every try finds
    nothing until then.
    """

    def __init__(self, max_size: int) -> None:
        self.size = self._max_size = max_size

    async def adapt(self, operation: Awaitable[int]) -> int:
        """Await one try; the number that came through, from which the size is learned."""
        try:
            processed = await operation
        except StoreLockTimeout:
            raise
        except (StoreReadTooLarge, StoreUnavailable):
            self.size = max(1, self.size // 2)
            raise
        if processed >= self.size:
            self.size = min(self._max_size, self.size + max(1, self.size // 8))
        return processed
