"""
What is recorded of a run: the closed set of events in its journal.

An event says what happened, in the past tense, with everything that `evolve` and a reader of the
journal need. Their stored names are in store/event_data.py.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from saga_engine.decider.run import CompensationCause, KeptReply
from saga_engine.vocabulary import Direction, Failure, IncidentCause, Json, Outcome, Resolution

ENGINE_OPERATOR = "saga-engine"
"""The operator of an incident that the engine resolves itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run was accepted."""

    run_id: str
    saga: str
    version: int
    fingerprint: str
    key: str | None
    input: Json
    steps: tuple[str, ...]
    started_at: datetime
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """A command is to be sent."""

    step: str
    direction: Direction
    attempt: int
    round: int
    command: str
    due_at: datetime
    payload: Json = None  # None if it is the payload of the attempt before
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """An attempt ended without a success and without a rejection."""

    step: str
    direction: Direction
    attempt: int
    outcome: Outcome  # failed or unknown
    failure: Failure
    retry_at: datetime | None = None  # when the next one is sent; None: there is none
    never_delivered: bool = False  # its command reached no queue, so that it did nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSucceeded:
    """The participant confirmed it; `late` if it had ended, and no incident kept it open."""

    step: str
    direction: Direction
    attempt: int
    reply: Json = None
    late: bool = False


@dataclass(frozen=True, slots=True)
class StepRejected:
    """A business no: nothing was done."""

    step: str
    direction: Direction
    attempt: int  # 0 if an operator reported it
    failure: Failure


@dataclass(frozen=True, slots=True)
class StepGivenUp:
    """The run compensates, so an action that awaited a retry or was blocked is not tried again."""

    step: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """An operator has the run go on without it."""

    step: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class StepCompleted:
    """An operator did it by hand."""

    step: str
    direction: Direction
    reply: Json = None


@dataclass(frozen=True, slots=True)
class RunStopping:
    """The run will compensate as soon as the steps in flight have settled."""

    cause: CompensationCause


@dataclass(frozen=True, slots=True)
class StopSuperseded:
    """The pivot succeeded while the run was stopping: it goes forward again."""

    reason: str


@dataclass(frozen=True, slots=True)
class RunCompensating:
    """The run compensates from here on (backward recovery)."""

    cause: CompensationCause


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened:
    """The run cannot go on at this step without a person; `kept_reply` is the reply that is why."""

    number: int
    step: str
    direction: Direction
    cause: IncidentCause
    message: str
    opened_at: datetime
    kept_reply: KeptReply | None = None


@dataclass(frozen=True, slots=True)
class IncidentResolved:
    """
    An operator acted; `operator` is ENGINE_OPERATOR if the incident is obsolete.

    After a retry the step is pending again, with a new budget of attempts.
    """

    number: int
    resolution: Resolution | None
    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunCompleted:
    """Every step succeeded or was skipped."""

    finished_at: datetime
    result: Json = None


@dataclass(frozen=True, slots=True)
class RunCompensated:
    """Every step that may have taken effect has been compensated."""

    finished_at: datetime


@dataclass(frozen=True, slots=True)
class RunAbandoned:
    """An operator closed the run; its effects stay as they are."""

    finished_at: datetime
    operator: str
    reason: str


FollowUpEvent: TypeAlias = (
    AttemptStarted
    | AttemptFailed
    | StepSucceeded
    | StepRejected
    | StepGivenUp
    | StepSkipped
    | StepCompleted
    | RunStopping
    | StopSuperseded
    | RunCompensating
    | IncidentOpened
    | IncidentResolved
    | RunCompleted
    | RunCompensated
    | RunAbandoned
)
"""What can follow a run's first event."""

Event: TypeAlias = RunStarted | FollowUpEvent
