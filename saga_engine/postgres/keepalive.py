"""
How soon a connection to a lost host is found.

A firewall drops the state of an idle connection, and a host may vanish while an answer is awaited.
The pool finds the first with a query before it uses a connection again. The kernel finds the second
with TCP keepalive (Linux manual, tcp(7)).
"""

import socket
import sys
from typing import Any

IDLE_PING_AFTER = 1.0
"""Seconds without use after which a connection is checked; under load none is idle that long."""

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 3, 1, 5
"""
Seconds without traffic before the first probe, seconds between probes, and how many may fail. A
lost host is found within 8 s, so that work continues within 10, and an outage of 4 s is survived.
"""

TCP_USER_TIMEOUT_MS = (KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES) * 1000
"""Milliseconds that sent data may stay unacknowledged; it overrides the number of probes."""


def enable_keepalive_on_driver(driver: Any) -> None:
    """Enable keepalive on a connection of asyncpg, which has no option for it."""
    transport = getattr(driver, "_transport", None)
    if sock := transport and transport.get_extra_info("socket"):
        enable_keepalive(sock)


def enable_keepalive(sock: socket.socket) -> None:
    """Let the kernel close a connection to a lost host; on Linux as soon as possible."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
