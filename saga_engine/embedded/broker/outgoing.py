"""
The write buffer of a connection: collects the frames of one iteration of the event loop.

`is_congested` stops deliveries when the client reads more slowly than the broker writes.
"""

import asyncio
from collections.abc import Callable
from typing import Final

_HIGH_WATER_MARK: Final = 1_048_576  # Bytes collected in one iteration before deliveries stop.


class WriteBuffer:
    """Frames to send; `on_writable` is called when the congestion ends."""

    def __init__(self, transport: asyncio.WriteTransport, on_writable: Callable[[], None]) -> None:
        self._transport = transport
        self._on_writable = on_writable
        self._parts: list[bytes] = []
        self._size = 0
        self._transport_paused = False  # The socket buffer is full.

    @property
    def is_congested(self) -> bool:
        """Whether deliveries should stop."""
        return self._transport_paused or self._size > _HIGH_WATER_MARK

    def write(self, data: bytes) -> None:
        """Write the data at the end of this iteration."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)

    def flush(self) -> None:
        """Write the collected data."""
        was_congested = self.is_congested and not self._transport_paused
        parts, self._parts, self._size = self._parts, [], 0
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))
        if was_congested and not self._transport_paused:
            self._on_writable()

    def pause(self) -> None:
        """The socket buffer is full."""
        self._transport_paused = True

    def resume(self) -> None:
        """The socket buffer has capacity again."""
        self._transport_paused = False
        self._on_writable()
