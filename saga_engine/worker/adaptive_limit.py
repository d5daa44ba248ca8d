"""How many rows a duty takes from PostgreSQL in one transaction."""

from collections.abc import Awaitable

from saga_engine.errors import StoreLockTimeout, StoreReadTooLarge, StoreUnavailable


class AdaptiveLimit:
    """
    An adaptive batch size, `size`, from 1 to *max_size*.

    After a timeout it is unknown whether the database is unavailable or overloaded, so a failure
    halves the size; likewise if the runs together are too large to be read. A lock timeout says
    nothing about either and changes nothing.

    A full batch that succeeds adds an eighth. A batch that was not full does not: after a timeout
    PostgreSQL may keep the rows locked for a while, and until then every attempt finds none.
    """

    def __init__(self, max_size: int) -> None:
        self.size = self._max_size = max_size

    async def adapt(self, operation: Awaitable[int]) -> int:
        """Await one attempt and adapt the size to it; returns how many rows it processed."""
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
