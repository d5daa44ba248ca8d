"""Telemetry events about runs: their steps, incidents and operators' actions."""

from dataclasses import dataclass

from saga_engine.vocabulary import (
    CompensationCode,
    Direction,
    IncidentCause,
    OperatorActionKind,
    Outcome,
    Resolution,
    Status,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionRegistered:
    """A worker has loaded a saga; `steps` are the names of its steps in order."""

    saga: str
    version: int
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run was started."""

    saga: str
    version: int
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCompensating:
    """A run began to compensate because of `cause`; `step` is the step that caused it, if any."""

    saga: str
    version: int
    run_id: str
    cause: CompensationCode
    step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """A run ended with `status`, `duration_s` after its start."""

    saga: str
    version: int
    run_id: str
    status: Status
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSent:
    """
    A command was committed to the outbox.

    It is published right after the commit, or later by the duty that resends outbox rows.
    """

    saga: str
    step: str
    direction: Direction
    attempt: int
    run_id: str
    message_id: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """
    An attempt ended with `outcome`; unknown means: no reply in time.

    `duration_s` is counted from the commit of its command; None if that time is not known. The ids
    are those of the reply, and empty without one.
    """

    saga: str
    step: str
    direction: Direction
    attempt: int
    run_id: str
    outcome: Outcome
    duration_s: float | None = None
    message_id: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled:
    """Attempt number `attempt` did not succeed; the next one follows after `delay_s`."""

    saga: str
    step: str
    direction: Direction
    attempt: int
    run_id: str
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened:
    """A run cannot continue without an operator, because of `cause`."""

    saga: str
    step: str
    direction: Direction
    run_id: str
    cause: IncidentCause


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentResolved:
    """An operator resolved an incident; `resolution` is None if later events made it obsolete."""

    saga: str
    step: str
    direction: Direction
    run_id: str
    resolution: Resolution | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorActionProcessed:
    """A worker accepted or refused an operator's request: a cancel or a resolution."""

    action: OperatorActionKind
    accepted: bool
    run_id: str = ""
