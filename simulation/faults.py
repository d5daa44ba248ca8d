"""
Fault injection: sampled faults, or a list of planned ones.

A process passes a point before each of its effects (a statement, a commit, a publish). Points are
numbered in the order in which they are passed, and a fault happens at the number of a point. So the
seed and the list of injected faults replay a simulation, and a shorter list makes a simpler one.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class FaultPoint(StrEnum):
    """Where a fault can happen."""

    STATEMENT = "statement"
    COMMIT = "commit"
    PUBLISH = "publish"
    MESSAGE = "message"  # each message of a batch
    CONFIRM = "confirm"
    ACKNOWLEDGE = "acknowledge"


class FaultKind(StrEnum):
    """What happens."""

    CRASH = "crash"  # the process crashes before the effect
    CRASH_AFTER = "crash_after"  # the process crashes after the effect
    SHUTDOWN = "shutdown"  # a graceful shutdown of the process
    FREEZE = "freeze"  # the process stands still before the effect, as after SIGSTOP, then goes on
    DISCONNECT = "disconnect"  # the connection is lost before the effect
    TIMEOUT = "timeout"  # a statement takes long, holds its locks, and is cancelled
    DISCONNECT_AFTER = "disconnect_after"  # the effect happens, and the response is lost
    OUTAGE = "outage"  # the broker blocks this publisher for a time
    NACKED = "nacked"
    UNROUTABLE = "unroutable"  # the message finds no queue
    LOST_BEFORE_CONFIRM = "lost_before_confirm"
    LOST_AFTER_CONFIRM = "lost_after_confirm"  # RabbitMQ can; it may cost only time
    DUPLICATED = "duplicated"
    DELAYED = "delayed"


KINDS_BY_POINT: dict[FaultPoint, tuple[FaultKind, ...]] = {
    FaultPoint.STATEMENT: (
        FaultKind.CRASH,
        FaultKind.DISCONNECT,
        FaultKind.TIMEOUT,
        FaultKind.FREEZE,
    ),
    FaultPoint.COMMIT: (
        FaultKind.CRASH,
        FaultKind.CRASH_AFTER,
        FaultKind.DISCONNECT,
        FaultKind.DISCONNECT_AFTER,
        FaultKind.FREEZE,
    ),
    FaultPoint.PUBLISH: (
        FaultKind.CRASH,
        FaultKind.OUTAGE,
        FaultKind.SHUTDOWN,
        FaultKind.FREEZE,
    ),
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
    FaultPoint.CONFIRM: (FaultKind.CRASH, FaultKind.DISCONNECT, FaultKind.FREEZE),
    FaultPoint.ACKNOWLEDGE: (
        FaultKind.CRASH,
        FaultKind.CRASH_AFTER,
        FaultKind.DISCONNECT,
        FaultKind.SHUTDOWN,
        FaultKind.FREEZE,
    ),
}
MAX_SECONDS = {
    FaultKind.DELAYED: 45.0,
    FaultKind.OUTAGE: 20.0,
    FaultKind.TIMEOUT: 10.0,
    FaultKind.FREEZE: 15.0,
}
"""
Seconds. A delayed message may arrive after every attempt, an outage exceeds a timeout. A process
that stands still may lose its lease and its transactions.
"""

STATEMENT_SKIP_SHARE = 0.8
"""The share of faults that skip a statement and happen at the next point."""

MESSAGE_INTERVAL_FACTOR = 0.3
"""The interval between faults of messages, as a share of that of other points."""

MAX_DOWNTIME_S = 5.0
"""The longest downtime of a process in seconds."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: the number of its point, what happens, and for how many seconds if it lasts."""

    point_number: int
    kind: FaultKind
    seconds: float


def seeded_random(seed: int, purpose: str) -> Random:
    """Random numbers that depend on the seed and the purpose, not on other draws."""
    return Random(f"{seed}/{purpose}")  # noqa: S311 - it must be predictable


class FaultInjector:
    """
    The faults of one simulation; `injected` are those that happened.

    Args:
        rng: samples the faults; None injects only the planned ones.
        interval: points between two sampled faults, on average; messages are counted apart.
        freezes: whether processes stand still, too.
    """

    def __init__(
        self,
        rng: Random | None = None,
        *,
        interval: float = 50,
        planned: Iterable[Fault] = (),
        freezes: bool = False,
    ) -> None:
        self._rng = rng
        self._interval = interval
        self._freezes = freezes
        self._planned = {fault.point_number: fault for fault in planned}
        self._disabled = False
        self._points_until_next = {True: 0, False: 0}
        self.points_passed = 0
        self.injected: list[Fault] = []
        self.counts: Counter[str] = Counter()

    def pass_point(self, point: FaultPoint) -> Fault | None:
        """Pass a point; return the fault that happens there, or None."""
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
        """Inject no more faults."""
        self._disabled = True

    def _sample(self, number: int, point: FaultPoint) -> Fault | None:
        rng = self._rng
        assert rng is not None, "planned faults are not sampled"
        is_message = point is FaultPoint.MESSAGE
        self._points_until_next[is_message] -= 1
        if self._points_until_next[is_message] > 0:
            return None
        if point is FaultPoint.STATEMENT and rng.random() < STATEMENT_SKIP_SHARE:
            return None
        interval = self._interval * MESSAGE_INTERVAL_FACTOR if is_message else self._interval
        self._points_until_next[is_message] = int(rng.expovariate(1 / interval))
        kinds = KINDS_BY_POINT[point]
        kind = rng.choice([each for each in kinds if self._freezes or each is not FaultKind.FREEZE])
        seconds = rng.uniform(0, MAX_SECONDS.get(kind, MAX_DOWNTIME_S))
        return Fault(number, kind, round(seconds, 3))
