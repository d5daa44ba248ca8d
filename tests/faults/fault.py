"""One kind of fault: its name, how it is injected, and how soon runs must resume."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random

from tests.faults.environment import FaultEnvironment

RESUME_LIMIT_S = 10.0
"""Seconds after the end of a fault within which a run started since must be completed."""

RESTART_RESUME_LIMIT_S = 15.0
"""The same after the restart of a server, counted from when it accepts connections."""

WORKERS, PARTICIPANTS, PROJECTORS = ("workers",), ("participants",), ("projectors",)
RABBITMQ, POSTGRESQL = ("rabbitmq",), ("postgresql",)
"""What a fault may need exclusively while others are active."""


@dataclass(frozen=True)
class Fault:
    """
    A kind of fault.

    Attributes:
        inject: injects it, and asserts that it had an effect. Returns the time of its end by the
            database's clock, or None if that is when it returns.
        times: how often the whole suite injects it.
        ci_times: how often the selection of CI does; 0: not at all.
        resume_limit_s: see RESUME_LIMIT_S.
        exclusive_resources: what it needs exclusively while other faults are active; None: it is
            injected alone.
        unavailable_reason: why this machine does not allow it; it is then skipped and reported.
    """

    name: str
    inject: Callable[[FaultEnvironment, Random], Awaitable[datetime | None]]
    times: int = 5
    ci_times: int = 0
    resume_limit_s: float = RESUME_LIMIT_S
    exclusive_resources: tuple[str, ...] | None = None
    unavailable_reason: str = ""
