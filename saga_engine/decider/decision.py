"""
Decision, and DecisionBuilder, which makes one: it has the run with every recorded event applied.

The parts of `decide` (replies, operator, advance) read `builder.run` and record more events.
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
    RunCompensating,
    StopSuperseded,
)
from saga_engine.decider.payloads import DecisionPayloads, PayloadNotMade
from saga_engine.decider.run import CompensationCause, KeptReply, Progress, Run, StepState
from saga_engine.decider.transitions import RunDraft
from saga_engine.payload.guard import UserCodeError
from saga_engine.saga.definition import Saga, declared_spec
from saga_engine.vocabulary import (
    CompensationCode,
    Direction,
    EngineFailureCode,
    Failure,
    IgnoredReason,
    IncidentCause,
    Outcome,
    StepKind,
)

MAX_MESSAGE_LENGTH = 500
"""Characters of an error's text that are kept in the journal."""

_INCIDENT_CAUSES: Mapping[tuple[Direction, Outcome], IncidentCause] = {
    (Direction.ACTION, Outcome.FAILED): IncidentCause.STEP_FAILED,
    (Direction.ACTION, Outcome.UNKNOWN): IncidentCause.STEP_UNKNOWN,
    (Direction.ACTION, Outcome.REJECTED): IncidentCause.STEP_REJECTED,
    (Direction.COMPENSATION, Outcome.FAILED): IncidentCause.COMPENSATION_FAILED,
    (Direction.COMPENSATION, Outcome.UNKNOWN): IncidentCause.COMPENSATION_UNKNOWN,
    (Direction.COMPENSATION, Outcome.REJECTED): IncidentCause.COMPENSATION_REJECTED,
}
"""The incident of a step that did not succeed, if the run may not compensate because of it."""

_INSTALLATION_INCIDENTS: Mapping[EngineFailureCode | None, IncidentCause] = {
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
    One decision about *run* at *now*, under *saga*; the only mutable object of the decider.

    `pending_stop`: why the run must compensate, as the run says or as this decision found.
    `advance` carries it out. While it is set, no compensation is in flight, awaits a retry or is
    blocked.
    """

    saga: Saga
    run: Run
    now: datetime
    payloads: DecisionPayloads
    events: list[Event] = field(default_factory=list)
    pending_stop: CompensationCause | None = field(init=False)

    _draft: RunDraft = field(init=False)

    def __post_init__(self) -> None:
        self.pending_stop = self.run.stop_cause
        self._draft = RunDraft(self.run)

    def record(self, event: Event) -> None:
        """Add an event and apply it to the run."""
        event.apply(self._draft)
        self.run = self._draft.run
        self.events.append(event)
        if isinstance(event, RunCompensating | StopSuperseded):
            self.pending_stop = None

    def state(self, step: str) -> StepState:
        """Where a step is now."""
        return self.run.steps[step]

    def progress(self, step: str, direction: Direction) -> Progress:
        """Where one direction of a step is now."""
        return self.run.steps[step].progress_of(direction)

    def decision(
        self, *, ignored_reason: IgnoredReason | None = None, refusal: str | None = None
    ) -> Decision:
        """What has been decided."""
        return Decision(
            run=self.run,
            events=tuple(self.events),
            ignored_reason=ignored_reason,
            refusal=refusal,
            code_errors=tuple(self.payloads.reader.code_errors),
        )

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
        progress = self.progress(step, direction)
        spec = declared_spec(self.saga, step, direction)
        payload = None  # a retry sends the same bytes again
        if progress.payload is None:
            try:
                payload = self.payloads.make_command(self.run, step, direction)
            except PayloadNotMade as error:
                self.open_incident(step, direction, error.cause, str(error))
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
        """End an attempt that failed or got no reply; after the last one, stop or block."""
        retry_at = self._retry_at(step, direction)
        event = AttemptFailed(
            step=step,
            direction=direction,
            attempt=self.progress(step, direction).attempts,
            outcome=outcome,
            failure=failure,
            retry_at=retry_at,
            never_delivered=never_delivered,
        )
        self.record(event)
        if retry_at is None:
            self.stop_or_block(step, direction, outcome, failure)

    def stop_or_block(
        self, step: str, direction: Direction, outcome: Outcome, failure: Failure
    ) -> None:
        """After a direction ended without a success: stop the run, or open an incident."""
        if self.pending_stop is not None:
            assert direction is Direction.ACTION, "a run stops before it compensates"
            return  # it stops already, and compensates this step if it must
        incident_cause = self._incident_cause(step, direction, outcome, failure)
        if incident_cause is not None:
            self.open_incident(step, direction, incident_cause, failure.text)
        else:
            code = CompensationCode(outcome)
            self.pending_stop = CompensationCause(code=code, step=step, failure=failure)

    def _incident_cause(
        self, step: str, direction: Direction, outcome: Outcome, failure: Failure
    ) -> IncidentCause | None:
        """Why a person must look; None if the run compensates instead."""
        if outcome is not Outcome.REJECTED and failure.engine_code in _INSTALLATION_INCIDENTS:
            return _INSTALLATION_INCIDENTS[failure.engine_code]
        if direction is Direction.ACTION and self._run_may_compensate(step, outcome):
            return None
        return _INCIDENT_CAUSES[direction, outcome]

    def _run_may_compensate(self, step: str, outcome: Outcome) -> bool:
        declared = self.saga.steps[step]
        match self.saga.step_kind(step):
            case StepKind.COMPENSATABLE:
                return True
            case StepKind.PIVOT:
                did_nothing = declared.read_only or outcome is Outcome.REJECTED
                return did_nothing or declared.compensation_spec is not None
            case _:  # StepKind.RETRIABLE
                return False

    def _retry_at(self, step: str, direction: Direction) -> datetime | None:
        """When the next attempt is due; None: the budget is spent, or the run is stopping."""
        progress = self.progress(step, direction)
        policy = declared_spec(self.saga, step, direction).retry
        attempts_used = progress.attempts - progress.attempts_before_budget
        if attempts_used >= policy.attempts or self.pending_stop is not None:
            return None
        seed = f"{self.run.run_id}/{step}/{direction}/{progress.attempts}"
        return self.now + policy.delay(attempts_used, seed)
