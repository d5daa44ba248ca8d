"""The limits of a body, from the settings; see `saga.limits`."""

from saga_engine.saga.limits import Limits
from saga_engine.settings import Settings


def limits_of(settings: Settings) -> Limits:
    """What the body of any message may hold, whether it is read or written."""
    return Limits(settings.body_bytes, settings.body_depth, settings.body_values)
