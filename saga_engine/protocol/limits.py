"""The limits of a body, from the settings; see `saga.limits`."""

from functools import lru_cache

from saga_engine.payload.limits import Limits
from saga_engine.settings import Settings


def limits_of(settings: Settings) -> Limits:
    """What the body of any message may hold, whether it is read or written."""
    return _limits(settings.body_bytes, settings.body_depth, settings.body_values)


@lru_cache(maxsize=8)
def _limits(size: int, depth: int, values: int) -> Limits:
    return Limits(size, depth, values)  # made once: it is asked of each message, twice
