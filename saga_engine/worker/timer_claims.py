"""How long a worker claims due timers, and whether a timer was moved in that time."""

from datetime import datetime, timedelta

from saga_engine.settings import Settings


def claim_lease(settings: Settings) -> timedelta:
    """How long no other worker takes a timer that was claimed."""
    return timedelta(seconds=settings.mapping_hard_timeout + settings.timer_lease)


def was_moved(wake_at: datetime | None, now: datetime, settings: Settings) -> bool:
    """
    Whether a timer, read again after its claim, was moved to a later time since.

    `recover` does so when it sends the commands of a run again. A claim alone leaves the timer at
    the end of its lease at the latest.
    """
    return wake_at is not None and wake_at > now + claim_lease(settings)
