"""Which projections or feeds of a process do not move although they should."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class Standstill:
    """A position that was seen first at `since`, on the clock of the event loop."""

    position: int
    since: float

    def observe(self, position: int, now: float) -> float:
        """Note the position now; return for how many seconds it has not moved."""
        if position != self.position:
            self.position, self.since = position, now
        return now - self.since


class Stored(Protocol):
    """A projection or a feed as it is stored."""

    @property
    def key(self) -> Hashable:
        """What identifies it in the process; as text, it names it in a sentence."""

    @property
    def state(self) -> str:
        """It has to move while this is `active`."""

    @property
    def position(self) -> int:
        """How far it is."""

    @property
    def owner(self) -> str | None:
        """The process that runs it; None when no lease is in force."""


class StallDetector:
    """
    Finds the projections or the feeds of a process that stand still.

    Args:
        kind: what they are called in a sentence.
        owner: the process. One that no process runs is its concern, too.
        timeout: seconds without a move.
    """

    def __init__(self, kind: str, owner: str, timeout: float) -> None:
        self._kind = kind
        self._owner = owner
        self._timeout = timeout
        self._positions: dict[Hashable, Standstill] = {}

    def find(
        self, stored: Sequence[Stored], horizon: int, now: float, waiting: Collection[Hashable] = ()
    ) -> list[str]:
        """
        Describe each one that stands still.

        Args:
            stored: all of the process, at their positions now.
            horizon: up to which position there are events.
            now: on the clock of the event loop, in seconds.
            waiting: keys of those that wait for something that no restart would help.
        """
        problems = [self._problem(each, horizon, now, waiting) for each in stored]
        return [each for each in problems if each]

    def _problem(
        self, stored: Stored, horizon: int, now: float, waiting: Collection[Hashable]
    ) -> str | None:
        standstill = self._positions.setdefault(stored.key, Standstill(stored.position, now))
        unmoved_s = standstill.observe(stored.position, now)
        is_due = stored.state == "active" and stored.owner in (self._owner, None)
        if not is_due or stored.position >= horizon or stored.key in waiting:
            standstill.since = now
            return None
        if unmoved_s < self._timeout:
            return None
        return (
            f"{self._kind} {stored.key} has been at position {stored.position} for"
            f" {unmoved_s:.0f} s, and there are events up to {horizon}"
        )
