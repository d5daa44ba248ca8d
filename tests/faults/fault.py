"""One kind of fault: what it is called, how it is done, and what may follow from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random

from tests.faults.environment import FaultEnvironment

RESUME_LIMIT_S = 10.0
"""Seconds after a fault's end within which a run that is started then must be completed."""

RESTART_RESUME_LIMIT_S = 15.0
"""The same after a server was restarted, from when it accepts connections."""

WORKERS, PARTICIPANTS = ("workers",), ("participants",)
RABBITMQ, POSTGRESQL = ("rabbitmq",), ("postgresql",)
"""What a fault may need for itself while it is mixed with others."""


@dataclass(frozen=True)
class Fault:
    """
    A kind of fault.

    `inject` does it, and asserts that it really came about. It returns when it was over, by the
    database's clock: from then on nobody helps. None: when it returned.
    `times` is how often the whole suite does it, `few` how often the selection on CI does, 0 for
    not at all. `mixes`: it may be under way together with others, and what it needs for itself
    then; None: only alone. `obstacle`: why it cannot be done on this machine, as a sentence; it is
    then told instead.
    """

    name: str
    inject: Callable[[FaultEnvironment, Random], Awaitable[datetime | None]]
    times: int = 5
    ci_times: int = 0
    resume_limit_s: float = RESUME_LIMIT_S
    exclusive_resources: tuple[str, ...] | None = None
    unavailable_reason: str = ""
