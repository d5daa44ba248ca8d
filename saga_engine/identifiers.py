"""Run ids: UUID version 7, whose first 48 bits are the time (RFC 9562, section 5.7)."""

import secrets
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

_UUID_VERSION = 7
_MAX_MILLISECONDS = 253_402_300_799_999  # the end of the year 9999


def uuid7() -> UUID:
    """Make a run id. Ids of the same millisecond are not ordered."""
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    high = (milliseconds << 16) | 0x7000 | (random >> 62)
    low = (0b10 << 62) | (random & (2**62 - 1))
    return UUID(int=(high << 64) | low)


def invalid_run_id_reason(
    run_id: UUID, now: datetime, *, max_age: timedelta, max_clock_lead: timedelta
) -> str | None:
    """
    Explain why an id cannot be the id of a new run, with the fix; None if it can.

    A run is stored in the partition of the month in its id, so an id must be made when its run is
    requested.

    Args:
        run_id: the id.
        now: timezone-aware, from the database's clock.
        max_age: how long ago the id may have been made.
        max_clock_lead: how far the clock that made it may be ahead.
    """
    fix = "Make it when you request the run: a UUID of version 7 (RFC 9562); use `key` for yours."
    if run_id.version != _UUID_VERSION:
        return f"The run_id {run_id} is not a UUID of version 7. {fix}"
    milliseconds = min(run_id.int >> 80, _MAX_MILLISECONDS)
    made_at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    if made_at < now - max_age or made_at > now + max_clock_lead:
        return f"The run_id {run_id} names the time {made_at:%Y-%m-%d %H:%M} UTC. {fix}"
    return None
