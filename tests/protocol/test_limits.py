"""The limits of a message are those of the settings."""

from saga_engine.payload.limits import (
    DEFAULT_LIMITS,
)
from saga_engine.protocol.limits import body_limits
from saga_engine.settings import Settings


def test_the_limits_of_the_core_are_those_of_the_settings():
    assert body_limits(Settings()) == DEFAULT_LIMITS
