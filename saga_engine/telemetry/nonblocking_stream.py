"""
A stream for log lines that never waits for its reader.

A full pipe blocks its writer, and with it every run. This stream buffers what the pipe does not
accept immediately and writes it with the next line. Above a limit lines are lost, and the writer
gets an error.

Processes under one supervisor write to the same pipe. The kernel keeps up to PIPE_BUF bytes of one
write together, so whole lines are written at a time. Longer lines may be mixed.
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
"""Maximum size of the buffer: half a minute of a busy worker's lines."""

PIPE_CHUNK_BYTES = 4096
"""Bytes that a writable pipe accepts without blocking, and keeps together (PIPE_BUF, pipe(7))."""

FLUSH_TIMEOUT = 1.0
"""Seconds for the buffer to be written at the end, in case the reader is only slow."""


@contextmanager
def nonblocking_writer(stream: TextIO) -> Iterator[TextIO]:
    """Yield a stream to the same file as *stream* that never waits for its reader."""
    stream.flush()
    raw = NonblockingStream(stream.fileno())
    text = io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)
    try:
        yield text
    finally:
        raw.flush_pending(FLUSH_TIMEOUT)


def flush_before_exit(stream: TextIO, timeout: float = FLUSH_TIMEOUT) -> None:
    """Write the buffer of a stream from `nonblocking_writer` before the process exits."""
    raw: object = stream.buffer
    if isinstance(raw, NonblockingStream):
        raw.flush_pending(timeout)


class NonblockingStream(io.RawIOBase):
    """Writes to a file descriptor what it accepts immediately; thread-safe, never closes it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = bytearray()
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    @property
    def name(self) -> str:
        """The name of the stream."""
        return "<nonblocking stream>"

    def fileno(self) -> int:
        """The descriptor that it writes to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, line: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """
        Write *line*, or buffer it.

        Raises:
            BlockingIOError: the buffer is full; *line* is lost.
            OSError: the file does not accept it, for example on a full disk; the buffer is lost.
        """
        with self._lock:
            self._write_pending()
            if len(self._pending) + len(line) > MAX_BUFFER_BYTES:
                raise BlockingIOError(errno.EAGAIN, "the buffer of the log is full")
            self._pending += line
            self._write_pending()
        return len(line)

    def flush_pending(self, timeout: float) -> None:
        """Write as much of the buffer as possible within the time."""
        with self._lock, suppress(OSError):  # the reader may be gone
            self._write_pending(time.monotonic() + timeout)

    def _write_pending(self, deadline: float = 0.0) -> None:
        """Write what is accepted immediately, or until a deadline of the monotonic clock."""
        while self._pending and self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            if deadline and time.monotonic() > deadline:
                return
            try:
                written = os.write(self._descriptor, self._next_chunk())
            except OSError:
                self._pending.clear()
                raise
            del self._pending[:written]

    def _next_chunk(self) -> bytearray:
        """Return as many whole lines as a pipe keeps together, or a part of one that is longer."""
        lines_end = self._pending.rfind(b"\n", 0, PIPE_CHUNK_BYTES) + 1
        return self._pending[: lines_end or PIPE_CHUNK_BYTES]
