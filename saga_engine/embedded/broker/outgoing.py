"""
What a connection still has to send: gathered for one turn of the event loop, written at once.

`congested` tells the queues to wait, when the client reads slower than we write.
"""

import asyncio
from collections.abc import Callable
from typing import Final

_HIGH_WATER_MARK: Final = 1_048_576  # Bytes gathered in one turn before queues wait.


class WriteBuffer:
    """The frames to send; `eased` is called when congestion is over."""

    def __init__(self, transport: asyncio.WriteTransport, on_writable: Callable[[], None]) -> None:
        self._transport = transport
        self._on_writable = on_writable
        self._parts: list[bytes] = []
        self._size = 0
        self._transport_paused = False  # The socket takes no more for now.

    @property
    def is_congested(self) -> bool:
        """Whether more should wait."""
        return self._transport_paused or self._size > _HIGH_WATER_MARK

    def write(self, data: bytes) -> None:
        """Send it soon."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)

    def flush(self) -> None:
        """Send it now."""
        was_congested = self.is_congested and not self._transport_paused
        parts, self._parts, self._size = self._parts, [], 0
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))
        if was_congested and not self._transport_paused:
            self._on_writable()

    def pause(self) -> None:
        """The socket is full."""
        self._transport_paused = True

    def resume(self) -> None:
        """The socket takes more again."""
        self._transport_paused = False
        self._on_writable()
