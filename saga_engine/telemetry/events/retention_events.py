"""Telemetry events about retention, and the projections and feeds that it waits for."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderPassedOver:
    """
    Expired journals were dropped that a projection or a feed had not read; it had not moved.

    Args:
        kind: projection or feed.
        name: of it.
        position: up to which it has read everything.
    """

    kind: str
    name: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionMeasured:
    """
    What retention has found about projections and feeds, by kind and name.

    Args:
        held_s: of each one for which an expired month is kept, the seconds since it has moved.
        incomplete: those that were passed over.
    """

    held_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    incomplete: frozenset[tuple[str, str]] = frozenset()
