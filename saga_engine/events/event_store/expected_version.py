"""What a stream must be like for an append: optimistic concurrency, without locks between reads."""

from enum import StrEnum
from typing import TypeAlias


class StreamState(StrEnum):
    """A state that a stream is expected to be in, where its exact version does not matter."""

    NEW = "new"  # no event was ever appended to it
    ANY = "any"  # nothing is expected
    EXISTING = "existing"  # at least one event


NEW, ANY, EXISTING = StreamState.NEW, StreamState.ANY, StreamState.EXISTING

ExpectedVersion: TypeAlias = StreamState | int
"""A state, or the version of the stream's last event; 0 is the same as NEW."""
