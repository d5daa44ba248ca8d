"""
Opening resources on entering `async with`, and closing them in reverse order on leaving it.

A class that derives from AsyncResource says what it opens. The rest is the same for all of them: if
opening fails halfway, what was opened is closed.
"""

from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import Self

from saga_engine.errors import InvalidInput


class AsyncResource(ABC):
    """
    Something that `async with` opens and closes.

    The exception that leaves the block is not passed to what was opened: a task group would raise
    it again, wrapped in an exception group. An exception of `_open` is passed to it, so `_open`
    enters a task group last.
    """

    _resources: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as resources:
            await self._open(resources)
            self._resources = resources.pop_all()
        return self

    async def __aexit__(self, *_error: object) -> None:
        resources, self._resources = self._resources, None
        if resources is not None:
            await resources.aclose()

    def require_open(self) -> None:
        """
        Check that this is called within `async with`.

        Raises:
            InvalidInput: it was not entered, or was left.
        """
        if self._resources is None:
            name = type(self).__name__
            raise InvalidInput(
                f"{name} is not open. Use it within `async with {name}(...) as {name.lower()}:`."
            )

    @abstractmethod
    async def _open(self, resources: AsyncExitStack) -> None:
        """Open everything, and push on *resources* what closes it."""
