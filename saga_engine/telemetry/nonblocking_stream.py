"""
Where log lines leave the process, without ever waiting for whoever should read them.

A pipe that nobody empties stops its writer, and with it every run. Here what cannot leave at once
is kept for the next line, up to a bound; beyond it lines are lost, and whoever writes is told so.
"""

import errno
import io
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

MAX_BUFFER_BYTES = 1_048_576
"""Bytes that wait at the most: half a minute of a busy worker's lines."""

PIPE_CHUNK_BYTES = 4096
"""Bytes that a pipe which says it can be written to takes without waiting (PIPE_BUF, pipe(7))."""

FLUSH_TIMEOUT = 1.0
"""Seconds that what waits has at the end, when the reader is only slow."""


@contextmanager
def nonblocking_writer(stream: TextIO) -> Iterator[TextIO]:
    """Give a stream to the same file as *stream* that never waits for it until the block ends."""
    stream.flush()
    raw = NonblockingStream(stream.fileno())
    text = io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)
    try:
        yield text
    finally:
        raw.flush_pending(FLUSH_TIMEOUT)


def flush_before_exit(stream: TextIO, timeout: float = FLUSH_TIMEOUT) -> None:
    """Write what waits in a stream that `unhurried` gave, before the process ends at once."""
    raw: object = stream.buffer
    if isinstance(raw, NonblockingStream):
        raw.flush_pending(timeout)


class NonblockingStream(io.RawIOBase):
    """Writes to a file descriptor, which stays open, what it takes at once; for any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = bytearray()
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    @property
    def name(self) -> str:
        """What it is called where somebody asks a stream."""
        return "<outlet>"

    def fileno(self) -> int:
        """The descriptor that is written to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether people read it."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, line: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """
        Write *line*, or keep it for later.

        Raises:
            BlockingIOError: too much waits already; *line* is lost.
            OSError: the file refuses it, as a full disk does; what waited is lost.
        """
        with self._lock:
            self._write_pending()
            if len(self._pending) + len(line) > MAX_BUFFER_BYTES:
                raise BlockingIOError(errno.EAGAIN, "nobody reads the log")
            self._pending += line
            self._write_pending()
        return len(line)

    def flush_pending(self, timeout: float) -> None:
        """Write what waits, as far as that is possible in the time."""
        with self._lock, suppress(OSError):  # whoever could read of it may be gone
            self._write_pending(time.monotonic() + timeout)

    def _write_pending(self, deadline: float = 0.0) -> None:
        """Write what is taken at once, and until a moment of the monotonic clock wait for more."""
        while self._pending and self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            if deadline and time.monotonic() > deadline:
                return
            try:
                written = os.write(self._descriptor, self._pending[:PIPE_CHUNK_BYTES])
            except OSError:
                self._pending.clear()
                raise
            del self._pending[:written]
