"""
What goes wrong, and where: faults by chance, or the same ones again.

Everything a process does to the world outside it passes a point, and the points of a simulation are
numbered as they are passed. A fault belongs to a number, so the list of the faults that struck is
all it takes, with the seed, to have them strike again; and a shorter list is a simpler story.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Point(StrEnum):
    """Where a fault can strike."""

    STATEMENT = "statement"
    COMMIT = "commit"
    PUBLISH = "publish"
    MESSAGE = "message"  # each of those that are published together
    CONFIRM = "confirm"
    SETTLE = "settle"


class Kind(StrEnum):
    """What strikes."""

    CRASH = "crash"  # the process dies before the effect
    CRASH_AFTER = "crash_after"  # the process dies after it
    CUT = "cut"  # the connection is lost before the effect
    CUT_AFTER = "cut_after"  # the effect happens, and its answer is lost
    OUTAGE = "outage"  # the broker takes no publishes of this process for a while
    NACKED = "nacked"
    LOST = "lost"  # before its confirm
    VANISHED = "vanished"  # after its confirm: a broker can (F7), and must cost no more than time
    DOUBLED = "doubled"
    DELAYED = "delayed"


KINDS: dict[Point, tuple[Kind, ...]] = {
    Point.STATEMENT: (Kind.CRASH, Kind.CUT),
    Point.COMMIT: (Kind.CRASH, Kind.CRASH_AFTER, Kind.CUT, Kind.CUT_AFTER),
    Point.PUBLISH: (Kind.CRASH, Kind.OUTAGE),
    Point.MESSAGE: (Kind.NACKED, Kind.LOST, Kind.VANISHED, Kind.DOUBLED, Kind.DELAYED),
    Point.CONFIRM: (Kind.CRASH, Kind.CUT),
    Point.SETTLE: (Kind.CRASH, Kind.CRASH_AFTER, Kind.CUT),
}
LONGEST = {Kind.DELAYED: 45.0, Kind.OUTAGE: 20.0}
"""Seconds; a message may so outlive every attempt of its step, an outage a step's timeout."""

DOWN = 5.0
"""Seconds a process is down at the most."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: at which point, what, and for how many seconds where that means something."""

    number: int
    kind: Kind
    seconds: float


def dice(seed: int, purpose: str) -> Random:
    """Dice that fall the same for the same seed, whatever is drawn for other purposes."""
    return Random(f"{seed}/{purpose}")  # noqa: S311 - to be foreseen is what they are for


class Faults:
    """
    The faults of one simulation; `met` are those that struck.

    Args:
        dice: decides where and what, once in `every` points on average; None: only `planned`.
    """

    def __init__(
        self, dice: Random | None = None, *, every: float = 50, planned: Iterable[Fault] = ()
    ) -> None:
        self._dice = dice
        self._every = every
        self._planned = {fault.number: fault for fault in planned}
        self._over = False
        self._next = 0
        self.points = 0
        self.met: list[Fault] = []
        self.counts: Counter[str] = Counter()
        self._draw()

    def at(self, point: Point) -> Fault | None:
        """Pass a point; what strikes there, if anything."""
        number = self.points
        self.points += 1
        if self._over:
            return None
        if self._dice is None:
            fault = self._planned.get(number)
        elif number < self._next:
            return None
        else:
            self._draw()
            kind = self._dice.choice(KINDS[point])
            seconds = self._dice.uniform(0, LONGEST.get(kind, DOWN))
            fault = Fault(number, kind, round(seconds, 3))
        if fault is None or fault.kind not in KINDS[point]:
            return None
        self.met.append(fault)
        self.counts[f"{fault.kind} at {point}"] += 1
        return fault

    def end(self) -> None:
        """From now on nothing goes wrong."""
        self._over = True

    def _draw(self) -> None:
        if self._dice is not None:
            self._next = self.points + int(self._dice.expovariate(1 / self._every))
