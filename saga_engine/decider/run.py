"""
Where a run is, as a value. Only `evolve` makes the next one.

It decides nothing. What is derived from a run is here, what may follow in `transitions`, and what a
trigger does to it in `decide`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from saga_engine.vocabulary import (
    CompensationCode,
    Direction,
    EngineFailureCode,
    Failure,
    IncidentCause,
    Json,
    Outcome,
    Status,
)


class StepStatus(StrEnum):
    """Where one direction of a step is; `transitions` says what may follow what."""

    PENDING = "pending"
    IN_FLIGHT = "in_flight"  # sent; its timeout is `due_at`
    AWAITING_RETRY = "awaiting_retry"  # the next attempt is sent at `due_at`
    BLOCKED = "blocked"  # by an open incident
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


PASSED = (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
"""The steps after an action with this status may start; a compensation with it is done."""

AWAITING_REPLY = (StepStatus.IN_FLIGHT, StepStatus.AWAITING_RETRY)
"""A reply to the last attempt says something new."""

UNSETTLED = (*AWAITING_REPLY, StepStatus.BLOCKED)
"""A success settles the step, even one that answers an older attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensationCause:
    """
    Why a run compensates. A deadline sets none of the other fields, a late success only the step.

    A failed or rejected step sets the step and its failure, a cancel the operator and the reason,
    and an operator's reject all four.
    """

    code: CompensationCode
    step: str | None = None
    failure: Failure | None = None
    operator: str | None = None
    reason: str | None = None

    @property
    def as_failure(self) -> Failure:
        """The failure that a client of the run gets."""
        if self.failure is not None:
            return self.failure
        return Failure.by_engine(EngineFailureCode(self.code), self.reason or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """
    One direction of a step.

    `attempts` counts sends; it is the number of the last attempt. `unroutable_attempts` are those
    that reached no queue and so did nothing. `attempts_before_retry` are those before an operator's
    retry, which gives the policy a new budget. `round` goes up when an operator retries a rejected
    command: only then is the idempotency key new. `payload` is kept from the first attempt, because
    a retry must send the same bytes. `rejected`: nothing was done, as the participant's last reply
    or an operator says; it stays true while the step is blocked.
    """

    status: StepStatus = StepStatus.PENDING
    attempts: int = 0
    unroutable_attempts: int = 0
    attempts_before_retry: int = 0
    round: int = 1
    sent_at: datetime | None = None
    due_at: datetime | None = None
    payload: Json = None
    reply: Json = None
    failure: Failure | None = None
    rejected: bool = False


@dataclass(frozen=True, slots=True)
class StepState:
    """Both directions of one step."""

    action: Progress = Progress()
    compensation: Progress = Progress()

    def progress_of(self, direction: Direction) -> Progress:
        """That direction's progress."""
        return self.action if direction is Direction.ACTION else self.compensation

    @property
    def may_have_effect(self) -> bool:
        """
        Whether the step may have an effect to compensate (promise P3).

        It has if it succeeded. Otherwise it may have if any attempt reached a queue and the last
        reply was not a rejection.
        """
        action = self.action
        reached_a_queue = action.attempts > action.unroutable_attempts
        return action.status is StepStatus.SUCCEEDED or (reached_a_queue and not action.rejected)

    @property
    def compensation_done(self) -> bool:
        """Whether its compensation is confirmed, or an operator took responsibility for it."""
        return self.compensation.status in PASSED


@dataclass(frozen=True, slots=True)
class KeptReply:
    """
    The reply that opened an incident, kept until the incident is closed.

    `body` is the JSON that arrived, encrypted if a codec is set; for an `unreadable` reply it is
    the text of the first bytes. `outcome` is the outcome that the reply states, None if it states
    none that exists.
    """

    attempt: int
    body: Json = field(default=None, repr=False)
    outcome: Outcome | None = None
    unreadable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A step at which the run needs a person; `kept_reply` is the reply that opened it, if any."""

    number: int
    step: str
    direction: Direction
    cause: IncidentCause
    message: str
    opened_at: datetime
    kept_reply: KeptReply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    One execution of a saga.

    `revision` counts its events. `stopping_cause` is set while steps in flight settle before the
    run compensates; `compensation_cause` is set once it compensates.
    """

    run_id: str
    saga: str
    version: int
    fingerprint: str
    key: str | None
    input: Json
    started_at: datetime
    deadline: datetime | None
    revision: int = 0
    status: Status = Status.RUNNING
    steps: Mapping[str, StepState] = field(default_factory=dict)
    stopping_cause: CompensationCause | None = None
    compensation_cause: CompensationCause | None = None
    incidents: Mapping[int, Incident] = field(default_factory=dict)
    incident_count: int = 0
    result: Json = None
    finished_at: datetime | None = None
