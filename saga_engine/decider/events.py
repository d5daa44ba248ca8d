"""
What is recorded of a run: the closed set of events in its journal, and what each changes in it.

An event says what happened, in the past tense, with everything that a reader of the journal needs.
`apply` changes a run that its caller has copied. The stored names are in store/event_data.py.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from saga_engine.decider.run import CompensationCause, Incident, Run, StepState, StepStatus
from saga_engine.decider.transitions import change_status, change_step, settle_step
from saga_engine.vocabulary import Direction, Failure, Json, Outcome, Resolution, Status

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

    def apply(self, _run: Run) -> None:
        raise AssertionError("a run starts once")


@dataclass(frozen=True, slots=True)
class _StepEvent:
    """What happens to one direction of a step."""

    step: str
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted(_StepEvent):
    """A command is to be sent."""

    attempt: int
    round: int
    command: str
    due_at: datetime
    payload: Json = None  # None if it is the payload of the attempt before
    sent_at: datetime | None = None

    def apply(self, run: Run) -> None:
        progress = change_step(run, self.step, self.direction, StepStatus.IN_FLIGHT)
        progress.attempts = self.attempt
        progress.round = self.round
        progress.sent_at = self.sent_at
        progress.due_at = self.due_at
        progress.rejected = False
        if self.payload is not None:
            progress.payload = self.payload


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(_StepEvent):
    """An attempt ended without a success and without a rejection."""

    attempt: int
    outcome: Outcome  # failed or unknown
    failure: Failure
    retry_at: datetime | None = None  # when the next one is sent; None: there is none
    never_delivered: bool = False  # its command reached no queue, so that it did nothing

    def apply(self, run: Run) -> None:
        retried = self.retry_at is not None
        status = StepStatus.AWAITING_RETRY if retried else StepStatus(self.outcome)
        progress = change_step(run, self.step, self.direction, status)
        progress.due_at = self.retry_at
        progress.failure = self.failure
        progress.undelivered_attempts += self.never_delivered


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSucceeded(_StepEvent):
    """The participant confirmed it; `late` if it had ended, and no incident kept it open."""

    attempt: int
    reply: Json = None
    late: bool = False

    def apply(self, run: Run) -> None:
        progress = settle_step(run, self.step, self.direction, StepStatus.SUCCEEDED)
        progress.reply = self.reply
        progress.failure = None
        progress.rejected = False


@dataclass(frozen=True, slots=True)
class StepRejected(_StepEvent):
    """A business no: nothing was done."""

    attempt: int  # 0 if an operator reported it
    failure: Failure

    def apply(self, run: Run) -> None:
        progress = settle_step(run, self.step, self.direction, StepStatus.REJECTED)
        progress.failure = self.failure
        progress.rejected = True


@dataclass(frozen=True, slots=True)
class StepGivenUp:
    """The run compensates, so an action that awaited a retry or was blocked is not tried again."""

    step: str
    outcome: Outcome

    def apply(self, run: Run) -> None:
        settle_step(run, self.step, Direction.ACTION, StepStatus(self.outcome))


@dataclass(frozen=True, slots=True)
class StepSkipped(_StepEvent):
    """An operator has the run go on without it."""

    def apply(self, run: Run) -> None:
        settle_step(run, self.step, self.direction, StepStatus.SKIPPED)


@dataclass(frozen=True, slots=True)
class StepCompleted(_StepEvent):
    """An operator did it by hand."""

    reply: Json = None

    def apply(self, run: Run) -> None:
        progress = settle_step(run, self.step, self.direction, StepStatus.SUCCEEDED)
        progress.reply = self.reply
        progress.failure = None
        progress.rejected = False


@dataclass(frozen=True, slots=True)
class RunStopping:
    """The run will compensate as soon as the steps in flight have settled."""

    cause: CompensationCause

    def apply(self, run: Run) -> None:
        run.stop_cause = self.cause


@dataclass(frozen=True, slots=True)
class StopSuperseded:
    """The pivot succeeded while the run was stopping: it goes forward again."""

    reason: str

    def apply(self, run: Run) -> None:
        run.stop_cause = None


@dataclass(frozen=True, slots=True)
class RunCompensating:
    """The run compensates from here on (backward recovery)."""

    cause: CompensationCause

    def apply(self, run: Run) -> None:
        change_status(run, Status.COMPENSATING)
        run.stop_cause, run.compensation_cause = None, self.cause
        run.finished_at = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened(Incident):
    """The run cannot go on at this step without a person; it has the fields of the incident."""

    def apply(self, run: Run) -> None:
        change_step(run, self.step, self.direction, StepStatus.BLOCKED).due_at = None
        incident = Incident(**{name: getattr(self, name) for name in Incident.__slots__})
        run.incidents = {**run.incidents, self.number: incident}
        run.incident_count += 1


@dataclass(frozen=True, slots=True)
class IncidentResolved:
    """
    An operator acted; `operator` is ENGINE_OPERATOR if the incident is obsolete.

    After a retry the step is pending again, with a new budget of attempts; after a rejection it has
    a new round as well, because the participant has answered the last one.
    """

    number: int
    resolution: Resolution | None
    operator: str
    reason: str

    def apply(self, run: Run) -> None:
        incident = run.incidents[self.number]
        run.incidents = {n: each for n, each in run.incidents.items() if n != self.number}
        if self.resolution is Resolution.RETRY:
            progress = change_step(run, incident.step, incident.direction, StepStatus.PENDING)
            progress.attempts_before_budget = progress.attempts
            progress.round += progress.rejected


@dataclass(frozen=True, slots=True)
class RunCompleted:
    """Every step succeeded or was skipped."""

    finished_at: datetime
    result: Json = None

    def apply(self, run: Run) -> None:
        change_status(run, Status.COMPLETED)
        run.finished_at, run.result = self.finished_at, self.result


@dataclass(frozen=True, slots=True)
class RunCompensated:
    """Every step that may have taken effect has been compensated."""

    finished_at: datetime

    def apply(self, run: Run) -> None:
        change_status(run, Status.COMPENSATED)
        run.finished_at = self.finished_at


@dataclass(frozen=True, slots=True)
class RunAbandoned:
    """An operator closed the run; its effects stay as they are."""

    finished_at: datetime
    operator: str
    reason: str

    def apply(self, run: Run) -> None:
        change_status(run, Status.ABANDONED)
        run.finished_at, run.stop_cause = self.finished_at, None


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
