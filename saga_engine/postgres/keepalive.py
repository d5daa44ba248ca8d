"""
How soon a connection whose other end is gone is found.

A firewall forgets a connection that has rested, and a host may vanish while an answer is awaited.
The first is found by a question before the connection is used again. The second is found by the
kernel, which asks the other host in the meantime (Linux manual, tcp(7)).
"""

import socket
import sys
from typing import Any

IDLE_PING_AFTER = 1.0
"""Seconds without use after which a connection is asked; under load none is that old."""

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 3, 1, 5
"""
Seconds of silence before a host is asked, seconds between two questions, and how many it may miss:
one that is gone is found within 8 s, so that work goes on within 10, and a gap of 4 s is survived.
"""

TCP_USER_TIMEOUT_MS = (KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES) * 1000
"""Milliseconds that what is sent may go unacknowledged; to the kernel it counts more than COUNT."""


def enable_keepalive_on_driver(driver: Any) -> None:
    """Have the kernel watch asyncpg's connection, which has no option for it."""
    transport = getattr(driver, "_transport", None)
    if sock := transport and transport.get_extra_info("socket"):
        enable_keepalive(sock)


def enable_keepalive(sock: socket.socket) -> None:
    """Have the kernel end a connection whose other host is gone, as soon as Linux can."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
