"""
How soon a connection whose other end is gone is found.

A firewall forgets a connection that has rested, and a host may vanish while an answer is awaited.
The first is found by a question before the connection is used again. The second is found by the
kernel, which asks the other host in the meantime (Linux manual, tcp(7)).
"""

import socket
import sys
from typing import Any

RESTED = 1.0
"""Seconds without use after which a connection is asked; under load none is that old."""

IDLE, INTERVAL, COUNT = 3, 1, 5
"""
Seconds of silence before a host is asked, seconds between two questions, and how many it may miss:
one that is gone is found within 8 s, so that work goes on within 10, and a gap of 4 s is survived.
"""

SILENCE_MS = (IDLE + INTERVAL * COUNT) * 1000
"""Milliseconds that what is sent may go unacknowledged; to the kernel it counts more than COUNT."""


def watch_driver(driver: Any) -> None:
    """Have the kernel watch asyncpg's connection, which has no option for it."""
    transport = getattr(driver, "_transport", None)
    if opened := transport and transport.get_extra_info("socket"):
        watch(opened)


def watch(opened: socket.socket) -> None:
    """Have the kernel end a connection whose other host is gone, as soon as Linux can."""
    if opened.family not in (socket.AF_INET, socket.AF_INET6):
        return
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, COUNT)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS)
