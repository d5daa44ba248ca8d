"""The limits of a body as the settings give them; `payload.limits` checks a body against them."""

from functools import lru_cache

from saga_engine.payload.limits import BodyLimits
from saga_engine.settings import Settings


def body_limits(settings: Settings) -> BodyLimits:
    """The limits of the body of any message, whether it is read or written."""
    return _cached_limits(
        settings.max_body_bytes, settings.max_body_depth, settings.max_body_json_values
    )


@lru_cache(maxsize=8)
def _cached_limits(max_bytes: int, max_depth: int, max_values: int) -> BodyLimits:
    # Cached, because every message needs them twice.
    return BodyLimits(max_bytes, max_depth, max_values)
