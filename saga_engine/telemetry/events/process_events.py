"""Telemetry events about a process: start and stop, watchdog, event loop, and the backlog."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from saga_engine.vocabulary import Program


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReady:
    """A worker or participant (`program`) began to process messages."""

    program: Program


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStopping:
    """A graceful shutdown began: the process takes no new messages and finishes current ones."""

    program: Program


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStopped:
    """A process ended; `clean` says whether it finished everything it had taken."""

    program: Program
    clean: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogLost:
    """The watchdog process beside this process ended, or could not be started."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogRestarted:
    """A watchdog process runs again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStarted:
    """A supervisor started one of its processes, which are numbered from 1."""

    process: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLost:
    """
    A process of a supervisor ended without a request, or could not be started.

    Another one is started after `delay_s`.
    """

    process: int
    problem: str
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLoopLagMeasured:
    """A timer of the event loop fired `lag_s` late."""

    lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogCounted:
    """
    What is in PostgreSQL.

    Every worker counts the same rows, so aggregate the gauges with max, never with sum.
    """

    runs: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by saga and status
    oldest_run_age_s: Mapping[str, float] = field(default_factory=dict)  # by saga
    incidents_open: Mapping[tuple[str, str, str], int] = field(  # by saga, cause and step
        default_factory=dict
    )
    dead_letters_open: Mapping[str, int] = field(default_factory=dict)  # by reason
    messages_awaiting_definition: int = 0
    starts_awaiting_admission: Mapping[str, int] = field(default_factory=dict)  # by saga
    starts_stranded: Mapping[str, int] = field(default_factory=dict)  # by saga
    crash_suspects: int = 0
    outbox_pending: int = 0
    outbox_oldest_age_s: float = 0.0
    timers_pending: int = 0
    timer_overdue_s: float = 0.0
    runs_in_default_partition: int = 0
