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
    STOP = "stop"  # the process is told to finish what it has in hand and to end
    CUT = "cut"  # the connection is lost before the effect
    TIMEOUT = "timeout"  # a statement takes long, with all that is locked, and is then cancelled
    CUT_AFTER = "cut_after"  # the effect happens, and its answer is lost
    OUTAGE = "outage"  # the broker takes no publishes of this process for a while
    NACKED = "nacked"
    RETURNED = "returned"  # no queue is bound for it, for a moment
    LOST = "lost"  # before its confirm
    VANISHED = "vanished"  # after its confirm: a broker can (F7), and must cost no more than time
    DOUBLED = "doubled"
    DELAYED = "delayed"


KINDS: dict[Point, tuple[Kind, ...]] = {
    Point.STATEMENT: (Kind.CRASH, Kind.CUT, Kind.TIMEOUT),
    Point.COMMIT: (Kind.CRASH, Kind.CRASH_AFTER, Kind.CUT, Kind.CUT_AFTER),
    Point.PUBLISH: (Kind.CRASH, Kind.OUTAGE, Kind.STOP),
    Point.MESSAGE: (
        *(Kind.NACKED, Kind.RETURNED, Kind.LOST, Kind.VANISHED, Kind.DOUBLED, Kind.DELAYED),
    ),
    Point.CONFIRM: (Kind.CRASH, Kind.CUT),
    Point.SETTLE: (Kind.CRASH, Kind.CRASH_AFTER, Kind.CUT, Kind.STOP),
}
LONGEST = {Kind.DELAYED: 45.0, Kind.OUTAGE: 20.0, Kind.TIMEOUT: 10.0}
"""Seconds; a message may so outlive every attempt of its step, an outage a step's timeout."""

STATEMENTS_SPARED = 0.8
"""How often a fault that is due at a statement waits for the next point."""

MESSAGES_SHARE = 0.3
"""Messages meet with a fault more often than other points, by this share of `every`."""

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
        dice: decides where and what, once in `every` points on average, messages apart; None: only
            what is `planned`.
    """

    def __init__(
        self, dice: Random | None = None, *, every: float = 50, planned: Iterable[Fault] = ()
    ) -> None:
        self._dice = dice
        self._every = every
        self._planned = {fault.number: fault for fault in planned}
        self._over = False
        self._spared = {True: 0, False: 0}
        self.points = 0
        self.met: list[Fault] = []
        self.counts: Counter[str] = Counter()

    def at(self, point: Point) -> Fault | None:
        """Pass a point; what strikes there, if anything."""
        number = self.points
        self.points += 1
        if self._over:
            return None
        fault = self._planned.get(number) if self._dice is None else self._drawn(number, point)
        if fault is None or fault.kind not in KINDS[point]:
            return None
        self.met.append(fault)
        self.counts[f"{fault.kind} at {point}"] += 1
        return fault

    def end(self) -> None:
        """From now on nothing goes wrong."""
        self._over = True

    def _drawn(self, number: int, point: Point) -> Fault | None:
        dice = self._dice
        assert dice is not None, "planned faults are not drawn"
        messages = point is Point.MESSAGE
        self._spared[messages] -= 1
        if self._spared[messages] > 0:
            return None
        if point is Point.STATEMENT and dice.random() < STATEMENTS_SPARED:
            return None
        every = self._every * MESSAGES_SHARE if messages else self._every
        self._spared[messages] = int(dice.expovariate(1 / every))
        kind = dice.choice(KINDS[point])
        seconds = dice.uniform(0, LONGEST.get(kind, DOWN))
        return Fault(number, kind, round(seconds, 3))
