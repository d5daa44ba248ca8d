"""
The decision, and one in progress: the run with every recorded event applied, and these events.

A DecisionBuilder exists for one call of `decide` and is the only mutable object in it. The parts of
`decide` (replies, operator, advance) read `builder.run` and record more events.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from saga_engine.decider.events import (
    ENGINE_OPERATOR,
    AttemptFailed,
    AttemptStarted,
    Event,
    IncidentOpened,
    IncidentResolved,
)
from saga_engine.decider.evolve import evolve
from saga_engine.decider.payloads import DecisionPayloads, PayloadNotMade, declared_command
from saga_engine.decider.run import PASSED, CompensationCause, KeptReply, Run, StepState
from saga_engine.payload.guard import UserCodeError
from saga_engine.saga.definition import Saga
from saga_engine.vocabulary import (
    CompensationCode,
    Direction,
    EngineFailureCode,
    Failure,
    IgnoredReason,
    IncidentCause,
    Outcome,
    Status,
    StepKind,
)

MAX_MESSAGE_LENGTH = 500
"""Characters of an error's text that are kept in the journal."""

INCIDENT_CAUSES: Mapping[tuple[Direction, Outcome], IncidentCause] = {
    (Direction.ACTION, Outcome.FAILED): IncidentCause.STEP_FAILED,
    (Direction.ACTION, Outcome.UNKNOWN): IncidentCause.STEP_UNKNOWN,
    (Direction.ACTION, Outcome.REJECTED): IncidentCause.STEP_REJECTED,
    (Direction.COMPENSATION, Outcome.FAILED): IncidentCause.COMPENSATION_FAILED,
    (Direction.COMPENSATION, Outcome.UNKNOWN): IncidentCause.COMPENSATION_UNKNOWN,
    (Direction.COMPENSATION, Outcome.REJECTED): IncidentCause.COMPENSATION_REJECTED,
}
"""The incident of a step that neither succeeded nor may make the run compensate."""

_INSTALLATION_INCIDENTS: Mapping[EngineFailureCode, IncidentCause] = {
    EngineFailureCode.UNROUTABLE: IncidentCause.UNROUTABLE,
    EngineFailureCode.DECRYPTION_FAILED: IncidentCause.DECRYPTION_FAILED,
}
"""Failures of the installation, not of the step: the run waits until a person corrects it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """
    What follows from one trigger.

    `events` in order, and `run` with all of them applied (None only if there is no run).
    `ignored_reason`: why the trigger changed nothing. `refusal`: a sentence for the sender.
    `code_errors`: calls into the author's code that returned no value.
    """

    run: Run | None
    events: tuple[Event, ...] = ()
    ignored_reason: IgnoredReason | None = None
    refusal: str | None = None
    code_errors: tuple[UserCodeError, ...] = ()


@dataclass(slots=True, kw_only=True)
class DecisionBuilder:
    """
    One decision about *run* at *now*, under *saga*.

    `requested_stop` is set by what happens in this decision and makes the run compensate;
    `advance` carries it out.
    """

    saga: Saga
    run: Run
    now: datetime
    payloads: DecisionPayloads
    events: list[Event] = field(default_factory=list)
    requested_stop: CompensationCause | None = None

    def record(self, event: Event) -> None:
        """Add an event and apply it to the run."""
        self.run = evolve(self.run, event)
        self.events.append(event)

    def step(self, name: str) -> StepState:
        """Where a step is now."""
        return self.run.steps[name]

    def decision(self) -> Decision:
        """What has been decided so far."""
        code_errors = tuple(self.payloads.code_errors)
        return Decision(run=self.run, events=tuple(self.events), code_errors=code_errors)

    @property
    def stop_cause(self) -> CompensationCause | None:
        """Why the run will compensate; None if nothing asks for it, or once it compensates."""
        return self.run.stopping_cause or self.requested_stop

    @property
    def past_pivot(self) -> bool:
        """Whether the pivot succeeded or was skipped, so that the run can only go forward."""
        return _past_pivot(self.saga, self.run)

    def open_incident(
        self,
        step: str,
        direction: Direction,
        cause: IncidentCause,
        message: str,
        kept_reply: KeptReply | None = None,
    ) -> None:
        """Open an incident: this direction of the step waits for a person."""
        # An exception's text may hold characters that PostgreSQL's jsonb refuses.
        text = message.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
        event = IncidentOpened(
            number=self.run.incident_count + 1,
            step=step,
            direction=direction,
            cause=cause,
            message=text[:MAX_MESSAGE_LENGTH],
            opened_at=self.now,
            kept_reply=kept_reply,
        )
        self.record(event)

    def close_obsolete_incident(self, step: str, direction: Direction, reason: str) -> None:
        """Resolve the open incident of that direction, if there is one, without a person."""
        for incident in self.run.incidents.values():
            if (incident.step, incident.direction) == (step, direction):
                self.record(IncidentResolved(incident.number, None, ENGINE_OPERATOR, reason))
                return

    def start_attempt(self, step: str, direction: Direction) -> None:
        """Order the next attempt, or open an incident if its payload cannot be made."""
        progress = self.step(step).progress_of(direction)
        spec = declared_command(self.saga, step, direction)
        payload = None  # a retry sends the same bytes again
        if progress.payload is None:
            try:
                payload = self.payloads.make_command(self.run, step, direction)
            except PayloadNotMade as error:
                self.open_incident(step, direction, error.cause, error.message)
                return
        event = AttemptStarted(
            step=step,
            direction=direction,
            attempt=progress.attempts + 1,
            round=progress.round,
            command=spec.command,
            due_at=self.now + spec.timeout,
            payload=payload,
            sent_at=self.now,
        )
        self.record(event)

    def fail_attempt(
        self,
        step: str,
        direction: Direction,
        outcome: Outcome,
        failure: Failure,
        *,
        never_delivered: bool = False,
    ) -> None:
        """End an attempt without a success, and give the step up if there is no other attempt."""
        retry_at = self._retry_at(step, direction)
        event = AttemptFailed(
            step=step,
            direction=direction,
            attempt=self.step(step).progress_of(direction).attempts,
            outcome=outcome,
            failure=failure,
            retry_at=retry_at,
            unroutable=never_delivered,
        )
        self.record(event)
        if retry_at is None:
            self._attempts_exhausted(step, direction, outcome, failure)

    def request_stop(self, cause: CompensationCause) -> None:
        """Let the run stop and compensate; the first cause is kept."""
        if self.stop_cause is None:
            self.requested_stop = cause

    def _attempts_exhausted(
        self, step: str, direction: Direction, outcome: Outcome, failure: Failure
    ) -> None:
        """No attempt is left: the run compensates, or a person must look."""
        if direction is Direction.ACTION and self.stop_cause is not None:
            return  # the run stops already, and compensates this step if it must
        code = failure.engine_code
        cause = _INSTALLATION_INCIDENTS.get(code) if code is not None else None
        if cause is None and (direction is Direction.COMPENSATION or not self._can_be_undone(step)):
            cause = INCIDENT_CAUSES[direction, outcome]
        if cause is not None:
            self.open_incident(step, direction, cause, failure.text)
        else:
            stop = CompensationCause(code=CompensationCode(outcome), step=step, failure=failure)
            self.request_stop(stop)

    def _retry_at(self, step: str, direction: Direction) -> datetime | None:
        """When the next attempt is due; None: the budget is spent, or the run is stopping."""
        progress = self.step(step).progress_of(direction)
        policy = declared_command(self.saga, step, direction).retry
        attempts_used = progress.attempts - progress.attempts_before_retry
        if attempts_used >= policy.attempts or self.stop_cause is not None:
            return None
        seed = f"{self.run.run_id}/{step}/{direction}/{progress.attempts}"
        return self.now + policy.delay(attempts_used, seed)

    def _can_be_undone(self, step: str) -> bool:
        """Whether no effect remains if the run gives this step up and compensates."""
        declared, kind = self.saga.steps[step], self.saga.step_kind(step)
        if kind is StepKind.PIVOT:
            return declared.read_only or declared.compensation_spec is not None
        return kind is StepKind.COMPENSATABLE


def active_deadline(saga: Saga, run: Run) -> datetime | None:
    """The deadline while it can still stop the run; an open incident suspends it."""
    applies = run.status is Status.RUNNING and run.stopping_cause is None and not run.incidents
    return run.deadline if applies and not _past_pivot(saga, run) else None


def _past_pivot(saga: Saga, run: Run) -> bool:
    return saga.pivot is not None and run.steps[saga.pivot.name].action.status in PASSED
