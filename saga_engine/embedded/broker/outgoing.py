"""
What a connection still has to send: gathered for one turn of the event loop, written at once.

`congested` tells the queues to wait, when the client reads slower than we write.
"""

import asyncio
from collections.abc import Callable
from typing import Final

_MUCH: Final = 1_048_576  # Bytes gathered in one turn before queues wait.


class Outgoing:
    """The frames to send; `eased` is called when congestion is over."""

    def __init__(self, transport: asyncio.WriteTransport, eased: Callable[[], None]) -> None:
        self._transport = transport
        self._eased = eased
        self._parts: list[bytes] = []
        self._size = 0
        self._full = False  # The socket takes no more for now.

    @property
    def congested(self) -> bool:
        """Whether more should wait."""
        return self._full or self._size > _MUCH

    def write(self, written: bytes) -> None:
        """Send it soon."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self.flush)
        self._parts.append(written)
        self._size += len(written)

    def flush(self) -> None:
        """Send it now."""
        waiting = self.congested and not self._full
        parts, self._parts, self._size = self._parts, [], 0
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))
        if waiting and not self._full:
            self._eased()

    def fill(self) -> None:
        """The socket is full."""
        self._full = True

    def drain(self) -> None:
        """The socket takes more again."""
        self._full = False
        self._eased()
