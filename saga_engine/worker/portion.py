"""How much of what waits in PostgreSQL is taken at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from saga_engine.errors import StoreBusy, StoreTooMuch, StoreUnavailable


class Portion:
    """
    How many are taken in one transaction, `size`, from 1 to *most*.

    A database that is away and one that is too slow for so much look the same. So what did not come
    through is tried again with half of it, and each success adds an eighth. The same for runs that
    together are too much to read. That somebody else holds a row says nothing of either.
    """

    def __init__(self, most: int) -> None:
        self.size = self._most = most

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Surround one try, and learn from it."""
        try:
            yield
        except StoreBusy:
            raise
        except (StoreTooMuch, StoreUnavailable):
            self.size = max(1, self.size // 2)
            raise
        self.size = min(self._most, self.size + max(1, self.size // 8))
