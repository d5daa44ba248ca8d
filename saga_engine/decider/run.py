"""
Where a run is, and what is derived from it.

A run is a value: `decide` and `evolve` return another one. Only events assign to a run and to its
progress (events.py), and only to a copy that a decision, or a replay of a journal, has made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from saga_engine.payload.serialization import replace_fields
from saga_engine.saga.definition import Saga
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
    """Where one direction of a step is."""

    PENDING = "pending"
    IN_FLIGHT = "in_flight"  # sent; its timeout is `due_at`
    AWAITING_RETRY = "awaiting_retry"  # the next attempt is sent at `due_at`
    BLOCKED = "blocked"  # by an open incident
    SUCCEEDED = "succeeded"  # this and the next three are named as the Outcome they follow
    REJECTED = "rejected"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


ACTION = Direction.ACTION  # looked up once: CPython 3.11 finds a member of an enum slowly

PASSED = (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
"""The steps after an action with this status may start; a compensation with it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensationCause:
    """Why a run compensates; which fields are set follows from the code."""

    code: CompensationCode
    step: str | None = None  # that was rejected, failed, or succeeded late
    failure: Failure | None = None  # of the step; not set by a late success
    operator: str | None = None  # who cancelled the run or rejected the step
    reason: str | None = None  # of the operator

    @property
    def as_failure(self) -> Failure:
        """The failure that a client of the run gets."""
        if self.failure is not None:
            return self.failure
        return Failure.by_engine(EngineFailureCode(self.code), self.reason or "")


@dataclass(kw_only=True)
class Progress:
    """
    One direction of a step.

    Attempts are counted on when an operator's retry gives a new budget. With `Retry(attempts=3)`:

        attempts 1 to 3 fail, an operator retries   attempts_before_budget=3, round=1
        attempt 4 is rejected, an operator retries  attempts_before_budget=4, round=2
        attempts 5 to 7 fail                        no attempt is left

    `rejected` stays true while an incident blocks a direction that was rejected: a compensation, or
    a step after the pivot.
    """

    status: StepStatus = StepStatus.PENDING
    attempts: int = 0  # times sent, and so the number of the last attempt
    undelivered_attempts: int = 0  # those whose command reached no queue, so that they did nothing
    attempts_before_budget: int = 0  # those before an operator's last retry
    round: int = 1  # part of the idempotency key; a new one when an operator retries a rejection
    sent_at: datetime | None = None
    due_at: datetime | None = None  # when the last attempt times out, or the next one is sent
    payload: Json = None  # of the round, while a retry (also an operator's) may send it again
    reply: Json = None
    failure: Failure | None = None
    rejected: bool = False  # nothing was done, as the last reply or an operator says


_NOT_STARTED = Progress()


@dataclass(frozen=True, slots=True)
class StepState:
    """Both directions of one step."""

    action: Progress = field(default_factory=lambda: _NOT_STARTED)
    compensation: Progress = field(default_factory=lambda: _NOT_STARTED)

    def progress_of(self, direction: Direction) -> Progress:
        return self.action if direction is ACTION else self.compensation

    @property
    def may_have_effect(self) -> bool:
        """
        Whether the step may have changed something that must be compensated (promise P3).

        Yes if it succeeded. No if it was rejected, or if no attempt reached a queue. Else perhaps,
        also if an operator has skipped it.
        """
        action = self.action
        reached_a_queue = action.attempts > action.undelivered_attempts
        return action.status is StepStatus.SUCCEEDED or (reached_a_queue and not action.rejected)

    @property
    def compensation_done(self) -> bool:
        """Whether its compensation is confirmed, or an operator took responsibility for it."""
        return self.compensation.status in PASSED


@dataclass(frozen=True, slots=True)
class KeptReply:
    """The reply that opened an incident, kept until the incident is closed."""

    attempt: int
    body: Json = field(default=None, repr=False)  # if unreadable, the beginning of its text
    outcome: Outcome | None = None  # that it states; None: it states none, or an unknown one
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


@dataclass(kw_only=True)
class Run:
    """One execution of a saga."""

    run_id: str
    saga: str
    version: int
    fingerprint: str
    key: str | None
    input: Json
    started_at: datetime
    deadline: datetime | None
    status: Status = Status.RUNNING
    steps: Mapping[str, StepState] = field(default_factory=dict)
    stop_cause: CompensationCause | None = None  # set while it stops: waits for steps in flight
    compensation_cause: CompensationCause | None = None  # set once it compensates
    incidents: Mapping[int, Incident] = field(default_factory=dict)  # the open ones
    incident_count: int = 0  # all of them
    result: Json = None
    finished_at: datetime | None = None

    def copy(self) -> "Run":
        """The same run, with a mapping of steps that `change_step` may change."""
        return replace_fields(self, steps=dict(self.steps))


def is_past_pivot(saga: Saga, run: Run) -> bool:
    """Whether the pivot succeeded or was skipped, so that the run can only go forward."""
    return saga.pivot is not None and run.steps[saga.pivot.name].action.status in PASSED


def active_deadline(saga: Saga, run: Run) -> datetime | None:
    """The deadline while it can still stop the run; an open incident suspends it."""
    applies = run.status is Status.RUNNING and run.stop_cause is None and not run.incidents
    return run.deadline if applies and not is_past_pivot(saga, run) else None
