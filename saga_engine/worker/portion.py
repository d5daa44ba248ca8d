"""How much of what waits in PostgreSQL is taken at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from saga_engine.errors import StoreUnavailable


class Portion:
    """
    How many are taken in one transaction, `size`, from 1 to *most*.

    A database that is away and one that is too slow for so much look the same. So what did not come
    through is tried again with half of it; each success doubles it.
    """

    def __init__(self, most: int) -> None:
        self.size = self._most = most

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Surround one try, and learn from it."""
        try:
            yield
        except StoreUnavailable:
            self.size = max(1, self.size // 2)
            raise
        self.size = min(self._most, 2 * self.size)
