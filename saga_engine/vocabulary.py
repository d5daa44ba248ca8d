"""
The words of a run, as closed sets: on the wire, in tables, in metrics and on the command line.

Everything else in this package uses them, and the records of a failure and of a command. README.md,
"Terminology", says what they mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self, TypeAlias

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
"""What a message body, a snapshot and an event's data consist of."""


class Status(StrEnum):
    """The status of a run; decider/transitions.py says what may follow what."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    ABANDONED = "abandoned"

    @property
    def is_finished(self) -> bool:
        """No more commands are sent, unless a late success proves an effect to compensate."""
        return self not in (Status.RUNNING, Status.COMPENSATING)


class StepKind(StrEnum):
    """Whether a step is before the pivot, the pivot, or after it (Richardson, chapter 4)."""

    COMPENSATABLE = "compensatable"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


class Direction(StrEnum):
    """Whether a command performs a step or compensates it."""

    ACTION = "action"
    COMPENSATION = "compensation"


class Outcome(StrEnum):
    """
    What is known of a command.

    succeeded: it was done. rejected: a business no, nothing was done. failed: a technical problem,
    it may have been done. unknown: no reply in time, it may have been done.
    """

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Resolution(StrEnum):
    """What an operator can do about an incident."""

    RETRY = "retry"
    SKIP = "skip"
    COMPLETE = "complete"
    REJECT = "reject"
    ABANDON = "abandon"


class OperatorActionKind(StrEnum):
    """What an operator can ask for: a resolution of an incident, or one of these."""

    RETRY = Resolution.RETRY
    SKIP = Resolution.SKIP
    COMPLETE = Resolution.COMPLETE
    REJECT = Resolution.REJECT
    ABANDON = Resolution.ABANDON
    CANCEL = "cancel"
    REDRIVE = "redrive"
    DISCARD = "discard"


class BarrierResult(StrEnum):
    """Why a participant's barrier replies to a command instead of the handler."""

    REPEATED = "repeated"  # it was processed before: the first reply is sent again
    EMPTY = "empty"  # a compensation of an action that never happened
    REFUSED = "refused"  # an action whose compensation was processed before it
    IN_PROGRESS = "in_progress"  # another transaction is processing it


class Program(StrEnum):
    """The program that a process of the engine runs."""

    WORKER = "worker"
    PARTICIPANT = "participant"
    PROJECTOR = "projector"
    CONSUMER = "consumer"


class ConnectionRole(StrEnum):
    """What a process uses a connection to the broker for."""

    PUBLISH = "publish"
    CONSUME = "consume"


class ConnectionState(StrEnum):
    """The state of a supervised connection to the broker."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    BLOCKED = "blocked"  # the broker accepts no publishes for now
    CLOSED = "closed"


class IncidentCause(StrEnum):
    """Why a run needs a person; docs/semantics.md, "Incidents", says what to do about each."""

    STEP_FAILED = "step_failed"
    STEP_UNKNOWN = "step_unknown"
    STEP_REJECTED = "step_rejected"
    COMPENSATION_FAILED = "compensation_failed"
    COMPENSATION_UNKNOWN = "compensation_unknown"
    COMPENSATION_REJECTED = "compensation_rejected"
    NOT_COMPENSATABLE = "not_compensatable"
    UNROUTABLE = "unroutable"
    MAPPING_FAILED = "mapping_failed"
    DECRYPTION_FAILED = "decryption_failed"
    REPLY_INVALID = "reply_invalid"
    REPLY_UNREADABLE = "reply_unreadable"
    INPUT_INVALID = "input_invalid"
    KEY_CONFLICT = "key_conflict"
    INTERNAL_ERROR = "internal_error"


class CompensationCode(StrEnum):
    """Why a run compensates: what a step came to, or what happened to the run."""

    REJECTED = "rejected"  # this and the next two are named as the Outcome of the step
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    LATE_SUCCESS = "late_success"


class IgnoredReason(StrEnum):
    """Why a message changes nothing, which is normal: messages arrive late and twice."""

    UNCORRELATED = "uncorrelated"  # no such attempt was ever made
    DUPLICATE = "duplicate"  # it is known already
    LATE = "late"  # something else has been decided meanwhile, and covers it
    FINISHED = "finished"  # a wake-up of a run that needs none
    ALREADY_STOPPING = "already_stopping"  # a cancel of a run that compensates anyway
    UNAUTHORIZED_SENDER = "unauthorized_sender"  # refused by the worker before it is decided


class EngineFailureCode(StrEnum):
    """
    The codes of failures that the engine itself reports.

    A participant chooses its codes freely, also one of these texts. The engine therefore decides by
    `Failure.engine_code`, which no message can set, and never by the text of a code.
    """

    TIMEOUT = "timeout"
    UNROUTABLE = "unroutable"
    UNPUBLISHABLE = "unpublishable"
    REPLY_UNREADABLE = "reply_unreadable"
    DECRYPTION_FAILED = "decryption_failed"
    REJECTED = "rejected"  # this and the next five are those of CompensationCode
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    LATE_SUCCESS = "late_success"


@dataclass(frozen=True, slots=True)
class Failure:
    """
    Why something did not succeed, as its reporter says.

    `code` is for programs, `message` for people. `engine_code` is set by `by_engine` alone: a
    participant's failure has none, even if its code is one of these. The one exception is
    `decryption_failed`, a code that docs/protocol.md reserves for this report; the protocol's
    decoding sets it.
    """

    code: str
    message: str = ""
    details: Json = None
    engine_code: EngineFailureCode | None = None

    @classmethod
    def by_engine(cls, code: EngineFailureCode, message: str = "") -> Self:
        """A failure that the engine reports."""
        return cls(code.value, message, engine_code=code)

    @property
    def text(self) -> str:
        """The code and the message, or only the code when there is no message."""
        return f"{self.code}: {self.message}" if self.message else self.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """
    One command of a run, as it is decided, stored, sent and performed.

    `name` says what the participant is to do. `idempotency_key` is the same for all attempts of a
    round. The engine stops waiting for this attempt at `deadline`. `payload` is never logged.
    """

    run_id: str
    saga: str
    version: int
    step: str
    direction: Direction
    attempt: int
    name: str
    idempotency_key: str
    payload: Json = field(repr=False)
    deadline: datetime
