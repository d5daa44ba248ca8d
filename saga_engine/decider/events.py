"""
What is recorded of a run: the closed set of events in its journal, and what each changes in it.

An event says what happened, in the past tense, with everything that a reader of the journal needs;
`apply` makes it so in a draft of the run. Their stored names are in store/event_data.py.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from saga_engine.decider.run import (
    CompensationCause,
    Incident,
    KeptReply,
    Run,
    StepState,
    StepStatus,
)
from saga_engine.decider.transitions import RunDraft
from saga_engine.vocabulary import (
    Direction,
    Failure,
    IncidentCause,
    Json,
    Outcome,
    Resolution,
    Status,
)

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

    def started_run(self) -> Run:
        """The run as it begins."""
        return Run(
            run_id=self.run_id,
            saga=self.saga,
            version=self.version,
            fingerprint=self.fingerprint,
            key=self.key,
            input=self.input,
            started_at=self.started_at,
            deadline=self.deadline,
            steps=dict.fromkeys(self.steps, StepState()),
        )

    def apply(self, _run: RunDraft) -> None:
        raise AssertionError("a run starts once")


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

    def apply(self, run: RunDraft) -> None:
        same_payload = run.run.steps[self.step].progress_of(self.direction).payload
        run.change_step(
            self.step,
            self.direction,
            StepStatus.IN_FLIGHT,
            attempts=self.attempt,
            round=self.round,
            sent_at=self.sent_at,
            due_at=self.due_at,
            payload=same_payload if self.payload is None else self.payload,
            rejected=False,
        )


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

    def apply(self, run: RunDraft) -> None:
        progress = run.run.steps[self.step].progress_of(self.direction)
        retried = self.retry_at is not None
        run.change_step(
            self.step,
            self.direction,
            StepStatus.AWAITING_RETRY if retried else StepStatus(self.outcome),
            due_at=self.retry_at,
            failure=self.failure,
            undelivered_attempts=progress.undelivered_attempts + self.never_delivered,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSucceeded:
    """The participant confirmed it; `late` if it had ended, and no incident kept it open."""

    step: str
    direction: Direction
    attempt: int
    reply: Json = None
    late: bool = False

    def apply(self, run: RunDraft) -> None:
        _succeed(run, self.step, self.direction, self.reply)


@dataclass(frozen=True, slots=True)
class StepRejected:
    """A business no: nothing was done."""

    step: str
    direction: Direction
    attempt: int  # 0 if an operator reported it
    failure: Failure

    def apply(self, run: RunDraft) -> None:
        values = {"failure": self.failure, "rejected": True}
        _settle(run, self.step, self.direction, StepStatus.REJECTED, **values)


@dataclass(frozen=True, slots=True)
class StepGivenUp:
    """The run compensates, so an action that awaited a retry or was blocked is not tried again."""

    step: str
    outcome: Outcome

    def apply(self, run: RunDraft) -> None:
        _settle(run, self.step, Direction.ACTION, StepStatus(self.outcome))


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """An operator has the run go on without it."""

    step: str
    direction: Direction

    def apply(self, run: RunDraft) -> None:
        _settle(run, self.step, self.direction, StepStatus.SKIPPED)


@dataclass(frozen=True, slots=True)
class StepCompleted:
    """An operator did it by hand."""

    step: str
    direction: Direction
    reply: Json = None

    def apply(self, run: RunDraft) -> None:
        _succeed(run, self.step, self.direction, self.reply)


@dataclass(frozen=True, slots=True)
class RunStopping:
    """The run will compensate as soon as the steps in flight have settled."""

    cause: CompensationCause

    def apply(self, run: RunDraft) -> None:
        run.change(stop_cause=self.cause)


@dataclass(frozen=True, slots=True)
class StopSuperseded:
    """The pivot succeeded while the run was stopping: it goes forward again."""

    reason: str

    def apply(self, run: RunDraft) -> None:
        run.change(stop_cause=None)


@dataclass(frozen=True, slots=True)
class RunCompensating:
    """The run compensates from here on (backward recovery)."""

    cause: CompensationCause

    def apply(self, run: RunDraft) -> None:
        causes = {"stop_cause": None, "compensation_cause": self.cause}
        run.change_status(Status.COMPENSATING, finished_at=None, **causes)


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

    def apply(self, run: RunDraft) -> None:
        incident = Incident(
            number=self.number,
            step=self.step,
            direction=self.direction,
            cause=self.cause,
            message=self.message,
            opened_at=self.opened_at,
            kept_reply=self.kept_reply,
        )
        run.change_step(self.step, self.direction, StepStatus.BLOCKED, due_at=None)
        run.change(
            incidents={**run.run.incidents, self.number: incident},
            incident_count=run.run.incident_count + 1,
        )


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

    def apply(self, run: RunDraft) -> None:
        open_incidents = dict(run.run.incidents)
        closed = open_incidents.pop(self.number)
        run.change(incidents=open_incidents)
        if self.resolution is Resolution.RETRY:
            progress = run.run.steps[closed.step].progress_of(closed.direction)
            run.change_step(
                closed.step,
                closed.direction,
                StepStatus.PENDING,
                attempts_before_budget=progress.attempts,
                round=progress.round + progress.rejected,
            )


@dataclass(frozen=True, slots=True)
class RunCompleted:
    """Every step succeeded or was skipped."""

    finished_at: datetime
    result: Json = None

    def apply(self, run: RunDraft) -> None:
        run.change_status(Status.COMPLETED, finished_at=self.finished_at, result=self.result)


@dataclass(frozen=True, slots=True)
class RunCompensated:
    """Every step that may have taken effect has been compensated."""

    finished_at: datetime

    def apply(self, run: RunDraft) -> None:
        run.change_status(Status.COMPENSATED, finished_at=self.finished_at)


@dataclass(frozen=True, slots=True)
class RunAbandoned:
    """An operator closed the run; its effects stay as they are."""

    finished_at: datetime
    operator: str
    reason: str

    def apply(self, run: RunDraft) -> None:
        run.change_status(Status.ABANDONED, finished_at=self.finished_at, stop_cause=None)


def _succeed(run: RunDraft, step: str, direction: Direction, reply: Json) -> None:
    values = {"reply": reply, "failure": None, "rejected": False}
    _settle(run, step, direction, StepStatus.SUCCEEDED, **values)


def _settle(
    run: RunDraft, step: str, direction: Direction, status: StepStatus, **values: Any
) -> None:
    """This direction of the step is no longer due, and its payload is not sent again."""
    run.change_step(step, direction, status, due_at=None, payload=None, **values)


Event: TypeAlias = (
    RunStarted
    | AttemptStarted
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
