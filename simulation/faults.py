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


class FaultPoint(StrEnum):
    """Where a fault can strike."""

    STATEMENT = "statement"
    COMMIT = "commit"
    PUBLISH = "publish"
    MESSAGE = "message"  # each of those that are published together
    CONFIRM = "confirm"
    ACKNOWLEDGE = "acknowledge"


class FaultKind(StrEnum):
    """What strikes."""

    CRASH = "crash"  # the process dies before the effect
    CRASH_AFTER = "crash_after"  # the process dies after it
    SHUTDOWN = "shutdown"  # the process is told to finish what it has in hand and to end
    DISCONNECT = "disconnect"  # the connection is lost before the effect
    TIMEOUT = "timeout"  # a statement takes long, with all that is locked, and is then cancelled
    DISCONNECT_AFTER = "disconnect_after"  # the effect happens, and its answer is lost
    OUTAGE = "outage"  # the broker takes no publishes of this process for a while
    NACKED = "nacked"
    UNROUTABLE = "unroutable"  # no queue is bound for it, for a moment
    LOST_BEFORE_CONFIRM = "lost_before_confirm"  # before its confirm
    LOST_AFTER_CONFIRM = "lost_after_confirm"  # which RabbitMQ can do; it must only cost time
    DUPLICATED = "duplicated"
    DELAYED = "delayed"


KINDS_BY_POINT: dict[FaultPoint, tuple[FaultKind, ...]] = {
    FaultPoint.STATEMENT: (FaultKind.CRASH, FaultKind.DISCONNECT, FaultKind.TIMEOUT),
    FaultPoint.COMMIT: (
        FaultKind.CRASH,
        FaultKind.CRASH_AFTER,
        FaultKind.DISCONNECT,
        FaultKind.DISCONNECT_AFTER,
    ),
    FaultPoint.PUBLISH: (FaultKind.CRASH, FaultKind.OUTAGE, FaultKind.SHUTDOWN),
    FaultPoint.MESSAGE: (
        *(
            FaultKind.NACKED,
            FaultKind.UNROUTABLE,
            FaultKind.LOST_BEFORE_CONFIRM,
            FaultKind.LOST_AFTER_CONFIRM,
            FaultKind.DUPLICATED,
            FaultKind.DELAYED,
        ),
    ),
    FaultPoint.CONFIRM: (FaultKind.CRASH, FaultKind.DISCONNECT),
    FaultPoint.ACKNOWLEDGE: (
        FaultKind.CRASH,
        FaultKind.CRASH_AFTER,
        FaultKind.DISCONNECT,
        FaultKind.SHUTDOWN,
    ),
}
MAX_SECONDS = {FaultKind.DELAYED: 45.0, FaultKind.OUTAGE: 20.0, FaultKind.TIMEOUT: 10.0}
"""Seconds; a message may so outlive every attempt of its step, an outage a step's timeout."""

STATEMENT_SKIP_SHARE = 0.8
"""How often a fault that is due at a statement waits for the next point."""

MESSAGE_INTERVAL_FACTOR = 0.3
"""Messages meet with a fault more often than other points, by this share of `every`."""

MAX_DOWNTIME_S = 5.0
"""Seconds a process is down at the most."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: at which point, what, and for how many seconds where that means something."""

    point_number: int
    kind: FaultKind
    seconds: float


def seeded_random(seed: int, purpose: str) -> Random:
    """Dice that fall the same for the same seed, whatever is drawn for other purposes."""
    return Random(f"{seed}/{purpose}")  # noqa: S311 - to be foreseen is what they are for


class FaultInjector:
    """
    The faults of one simulation; `met` are those that struck.

    Args:
        dice: decides where and what, once in `every` points on average, messages apart; None: only
            what is `planned`.
    """

    def __init__(
        self, rng: Random | None = None, *, interval: float = 50, planned: Iterable[Fault] = ()
    ) -> None:
        self._rng = rng
        self._interval = interval
        self._planned = {fault.point_number: fault for fault in planned}
        self._disabled = False
        self._points_until_next = {True: 0, False: 0}
        self.points_passed = 0
        self.injected: list[Fault] = []
        self.counts: Counter[str] = Counter()

    def pass_point(self, point: FaultPoint) -> Fault | None:
        """Pass a point; what strikes there, if anything."""
        number = self.points_passed
        self.points_passed += 1
        if self._disabled:
            return None
        fault = self._planned.get(number) if self._rng is None else self._sample(number, point)
        if fault is None or fault.kind not in KINDS_BY_POINT[point]:
            return None
        self.injected.append(fault)
        self.counts[f"{fault.kind} at {point}"] += 1
        return fault

    def disable(self) -> None:
        """From now on nothing goes wrong."""
        self._disabled = True

    def _sample(self, number: int, point: FaultPoint) -> Fault | None:
        rng = self._rng
        assert rng is not None, "planned faults are not drawn"
        is_message = point is FaultPoint.MESSAGE
        self._points_until_next[is_message] -= 1
        if self._points_until_next[is_message] > 0:
            return None
        if point is FaultPoint.STATEMENT and rng.random() < STATEMENT_SKIP_SHARE:
            return None
        interval = self._interval * MESSAGE_INTERVAL_FACTOR if is_message else self._interval
        self._points_until_next[is_message] = int(rng.expovariate(1 / interval))
        kind = rng.choice(KINDS_BY_POINT[point])
        seconds = rng.uniform(0, MAX_SECONDS.get(kind, MAX_DOWNTIME_S))
        return Fault(number, kind, round(seconds, 3))
