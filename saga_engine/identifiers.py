"""Run ids: UUID version 7, whose first 48 bits are the time (RFC 9562, section 5.7)."""

import secrets
import time
from uuid import UUID


def uuid7() -> UUID:
    """Make a run id. Ids made in the same millisecond are in no order."""
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    high = (milliseconds << 16) | 0x7000 | (random >> 62)
    low = (0b10 << 62) | (random & (2**62 - 1))
    return UUID(int=(high << 64) | low)
