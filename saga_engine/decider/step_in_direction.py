"""
StepInDirection: one direction of a step in a decision, where its attempts start, succeed and fail.

`_stop_or_block` says when a step that did not succeed makes the run compensate, and when it gets an
incident.
"""

from collections.abc import Mapping
from datetime import datetime

from saga_engine.decider.decision import MAX_MESSAGE_LENGTH, DecisionBuilder
from saga_engine.decider.events import (
    ENGINE_OPERATOR,
    AttemptFailed,
    AttemptStarted,
    IncidentOpened,
    IncidentResolved,
    StepRejected,
    StepSucceeded,
)
from saga_engine.decider.payloads import PayloadNotMade
from saga_engine.decider.run import CompensationCause, KeptReply, Progress
from saga_engine.saga.definition import CommandSpec, Step
from saga_engine.vocabulary import (
    CompensationCode,
    Direction,
    EngineFailureCode,
    Failure,
    IncidentCause,
    Json,
    Outcome,
    StepKind,
)

_INCIDENT_CAUSES: Mapping[tuple[Direction, Outcome], IncidentCause] = {
    (Direction.ACTION, Outcome.FAILED): IncidentCause.STEP_FAILED,
    (Direction.ACTION, Outcome.UNKNOWN): IncidentCause.STEP_UNKNOWN,
    (Direction.ACTION, Outcome.REJECTED): IncidentCause.STEP_REJECTED,
    (Direction.COMPENSATION, Outcome.FAILED): IncidentCause.COMPENSATION_FAILED,
    (Direction.COMPENSATION, Outcome.UNKNOWN): IncidentCause.COMPENSATION_UNKNOWN,
    (Direction.COMPENSATION, Outcome.REJECTED): IncidentCause.COMPENSATION_REJECTED,
}
"""The incident of a direction of a step that is blocked because it did not succeed."""

_INSTALLATION_INCIDENTS: Mapping[EngineFailureCode | None, IncidentCause] = {
    EngineFailureCode.UNROUTABLE: IncidentCause.UNROUTABLE,
    EngineFailureCode.DECRYPTION_FAILED: IncidentCause.DECRYPTION_FAILED,
}
"""Failures of the installation, not of the step: no queue, or no key to decrypt a payload."""


class StepInDirection:
    """One direction of a step: what is declared, where it is now, and what can happen to it."""

    __slots__ = ("builder", "direction", "name")

    def __init__(self, builder: DecisionBuilder, name: str, direction: Direction) -> None:
        self.builder = builder
        self.name = name
        self.direction = direction

    @property
    def declared(self) -> Step:
        return self.builder.saga.steps[self.name]

    @property
    def spec(self) -> CommandSpec:
        spec = self.declared.command_spec(self.direction)
        assert spec is not None, f"{self.name} has no {self.direction}"
        return spec

    @property
    def progress(self) -> Progress:
        return self.builder.run.steps[self.name].progress_of(self.direction)

    def start_attempt(self) -> None:
        """Order the next attempt, or open an incident if its payload cannot be made."""
        builder, progress, spec = self.builder, self.progress, self.spec
        payload = None  # a retry sends the same bytes again
        if progress.payload is None:
            try:
                payload = builder.payloads.make_command(builder.run, self.name, self.direction)
            except PayloadNotMade as error:
                self.open_incident(error.cause, str(error))
                return
        event = AttemptStarted(
            self.name,
            self.direction,
            attempt=progress.attempts + 1,
            round=progress.round,
            command=spec.command,
            due_at=builder.now + spec.timeout,
            payload=payload,
            sent_at=builder.now,
        )
        builder.record(event)

    def succeed(self, attempt: int, reply: Json, *, late: bool = False) -> None:
        event = StepSucceeded(self.name, self.direction, attempt=attempt, reply=reply, late=late)
        self.builder.record(event)

    def reject(self, attempt: int, failure: Failure) -> None:
        """Record that the participant rejected it; stop or block."""
        self.builder.record(StepRejected(self.name, self.direction, attempt, failure))
        self._stop_or_block(Outcome.REJECTED, failure)

    def fail_attempt(
        self, outcome: Outcome, failure: Failure, *, never_delivered: bool = False
    ) -> None:
        """End an attempt that failed or got no reply; after the last one, stop or block."""
        retry_at = self._retry_at()
        event = AttemptFailed(
            self.name,
            self.direction,
            attempt=self.progress.attempts,
            outcome=outcome,
            failure=failure,
            retry_at=retry_at,
            never_delivered=never_delivered,
        )
        self.builder.record(event)
        if retry_at is None:
            self._stop_or_block(outcome, failure)

    def open_incident(
        self, cause: IncidentCause, message: str, kept_reply: KeptReply | None = None
    ) -> None:
        """Open an incident: this direction of the step waits for a person."""
        # An exception's text may hold characters that PostgreSQL's jsonb refuses.
        text = message.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
        event = IncidentOpened(
            number=self.builder.run.incident_count + 1,
            step=self.name,
            direction=self.direction,
            cause=cause,
            message=text[:MAX_MESSAGE_LENGTH],
            opened_at=self.builder.now,
            kept_reply=kept_reply,
        )
        self.builder.record(event)

    def close_obsolete_incident(self, reason: str) -> None:
        """Resolve its open incident, if there is one, without a person."""
        for incident in self.builder.run.incidents.values():
            if (incident.step, incident.direction) == (self.name, self.direction):
                event = IncidentResolved(incident.number, None, ENGINE_OPERATOR, reason)
                self.builder.record(event)
                return

    def _retry_at(self) -> datetime | None:
        """When the next attempt is due; None: no attempt is left, or the run is stopping."""
        builder, progress, policy = self.builder, self.progress, self.spec.retry
        attempts_used = progress.attempts - progress.attempts_before_budget
        if attempts_used >= policy.attempts or builder.is_stopping:
            return None
        seed = f"{builder.run.run_id}/{self.name}/{self.direction}/{progress.attempts}"
        return builder.now + policy.delay(attempts_used, seed)

    def _stop_or_block(self, outcome: Outcome, failure: Failure) -> None:
        """
        Stop the run, or block this direction of the step, which has ended without a success.

        The first row that applies:

            the run is stopping already  neither: it compensates the step later, if it must
            no queue or key, unrejected  block: an operator corrects the installation
            a compensation               block: nothing else can undo the step
            a step after the pivot       block: the run can only go forward
            rejected, or read-only       stop: there is nothing to undo
            it has a compensation        stop: every other step before the pivot has one
            any other pivot              block: it may have an effect that cannot be undone
        """
        if self.builder.is_stopping:
            return
        installation_cause = _INSTALLATION_INCIDENTS.get(failure.engine_code)
        if installation_cause is not None and outcome is not Outcome.REJECTED:
            self.open_incident(installation_cause, failure.text)
        elif self._lets_run_compensate(outcome):
            code = CompensationCode(outcome)
            self.builder.stop(CompensationCause(code=code, step=self.name, failure=failure))
        else:
            self.open_incident(_INCIDENT_CAUSES[self.direction, outcome], failure.text)

    def _lets_run_compensate(self, outcome: Outcome) -> bool:
        """What the last five rows of `_stop_or_block` say: True is stop, False is block."""
        step, kind = self.declared, self.builder.saga.step_kind(self.name)
        if self.direction is Direction.COMPENSATION or kind is StepKind.RETRIABLE:
            return False
        nothing_to_undo = outcome is Outcome.REJECTED or step.read_only
        return nothing_to_undo or step.compensation_spec is not None
