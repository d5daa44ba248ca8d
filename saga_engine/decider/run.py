"""
Where a run stands, as a value. `evolve` is the only place that makes the next one.

A Run has what is fixed or has a column of its own (ids, input, status, times), and a state that is
stored as one JSON snapshot; `state_of` and `restore` are the two directions of that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from saga_engine.payload.serialization import read_fields, replace_fields, to_data
from saga_engine.vocabulary import Direction, Failure, Json, Outcome, Status


class StepStatus(StrEnum):
    """Where one direction of a step stands. The last five are final unless an operator acts."""

    PENDING = "pending"
    IN_FLIGHT = "in_flight"  # sent; its timeout is `due_at`
    AWAITING_RETRY = "awaiting_retry"  # for its next attempt, at `due_at`
    BLOCKED = "blocked"  # by an open incident
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CompensationCause:
    """Why a run turned back."""

    code: str  # rejected, failed, unknown, cancelled, deadline, late_success
    step: str | None = None
    failure: Failure | None = None
    operator: str | None = None
    reason: str | None = None

    @property
    def as_failure(self) -> Failure:
        """What whoever waits for the run is told."""
        return self.failure or Failure(self.code, self.reason or "")


@dataclass(frozen=True, slots=True)
class Progress:
    """
    One direction of a step.

    `attempts` counts sends, from 1; `returned` those that reached no queue and so did nothing;
    `spent` those that an operator's retry has written off, so that the policy counts anew. `round`
    goes up when a rejected command is tried again by hand: only then is the idempotency key new.
    `payload` is kept from the first attempt until the outcome is settled, because a retry must send
    the very same bytes.
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
    rejected: bool = False  # the last word of the participant was a business no


@dataclass(frozen=True, slots=True)
class StepRun:
    """Both directions of one step."""

    action: Progress = Progress()
    compensation: Progress = Progress()

    def progress_of(self, direction: Direction) -> Progress:
        """That direction's progress."""
        return self.action if direction is Direction.ACTION else self.compensation

    @property
    def may_have_effect(self) -> bool:
        """Whether something may have happened that would have to be undone."""
        if self.action.status is StepStatus.SUCCEEDED:
            return True
        return self.action.attempts > self.action.unroutable_attempts and not self.action.rejected

    @property
    def compensation_done(self) -> bool:
        """Whether its compensation is confirmed, or an operator took responsibility for it."""
        return self.compensation.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)


@dataclass(frozen=True, slots=True)
class KeptReply:
    """
    The reply that opened an incident, kept until the incident is closed.

    `body` is the JSON that arrived, sealed where a codec is set; of a reply that is `unreadable`,
    the text of its first bytes. `outcome` is what the reply said of itself, None if it named none
    of the three.
    """

    attempt: int
    body: Json = field(default=None, repr=False)
    outcome: Outcome | None = None
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Incident:
    """
    A place where the run cannot go on without a person.

    `kept` is the reply that is the reason, if a reply is.
    """

    number: int
    step: str
    direction: Direction
    cause: str
    message: str
    opened_at: datetime
    kept_reply: KeptReply | None = None


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """
    What a client learns of the place where its run waits for a person.

    `since` is when the incident was opened. There is neither a payload nor a participant's text in
    it, because any client may ask.
    """

    number: int
    step: str
    direction: Direction
    cause: str
    since: datetime

    def text(self, run_id: str) -> str:
        """What it is, in words."""
        return (
            f"incident {run_id}/{self.number}: {self.cause} at step {self.step}"
            f" ({self.direction}), since {self.since:%Y-%m-%d %H:%M:%S} UTC"
        )


@dataclass(frozen=True, slots=True)
class Run:
    """
    One execution of a saga.

    `revision` counts the events it is made of. `stop` is set while steps in flight settle before
    the run turns back; `cause` once it has turned back.
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
    steps: Mapping[str, StepRun] = field(default_factory=dict)
    stopping_cause: CompensationCause | None = None
    compensation_cause: CompensationCause | None = None
    incidents: Mapping[int, Incident] = field(default_factory=dict)
    incident_count: int = 0
    result: Json = None
    finished_at: datetime | None = None


SNAPSHOT_FIELDS = (
    "steps",
    "stopping_cause",
    "compensation_cause",
    "incidents",
    "incident_count",
    "result",
)
"""The fields of a Run that are stored as its snapshot; the others have columns of their own."""


def to_snapshot(run: Run) -> dict[str, Any]:
    """The part of a run that changes, as data for `restore`; times are still datetimes."""
    return to_data(run, SNAPSHOT_FIELDS)


def restore_run(identity: Run, snapshot: Mapping[str, Any]) -> Run:
    """
    Give *identity* the state that `state_of` made, after a trip through JSON.

    *identity* carries what has columns of its own: ids, input, revision, status and times.
    """
    return replace_fields(identity, **read_fields(Run, snapshot))


def first_open_incident(run: Run) -> OpenIncident | None:
    """The first incident of a run that is open, without what a client must not see."""
    if not run.incidents:
        return None
    incident = run.incidents[min(run.incidents)]
    return OpenIncident(
        incident.number, incident.step, incident.direction, incident.cause, incident.opened_at
    )
