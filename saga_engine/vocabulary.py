"""
The words of a run that travel: on the wire, in tables, in metrics and in the command line.

Everything else in this package is built from them. Their meanings stand in README.md, "The words".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
"""What a message body, a snapshot and an event's data are made of."""


class Status(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    ABANDONED = "abandoned"

    @property
    def is_finished(self) -> bool:
        """Nothing more will be sent, unless a late success proves an effect nobody will undo."""
        return self not in (Status.RUNNING, Status.COMPENSATING)


class StepKind(StrEnum):
    """What a step's place relative to the pivot allows (Richardson, Microservices Patterns, 4)."""

    COMPENSATABLE = "compensatable"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


class Direction(StrEnum):
    """Whether a command does a step or undoes it."""

    ACTION = "action"
    COMPENSATION = "compensation"


class Outcome(StrEnum):
    """
    What is known of a command.

    succeeded: it was done. rejected: a business no, nothing was done. failed: technical trouble,
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


class BarrierCase(StrEnum):
    """Why a participant's barrier replies to a command instead of the handler."""

    REPEATED = "repeated"  # it was processed before: the first reply is sent again
    EMPTY = "empty"  # a compensation of an action that never happened
    REFUSED = "refused"  # an action whose compensation was processed before it
    IN_PROGRESS = "in_progress"  # another transaction is processing it


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


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something did not succeed, in the words of whoever said so."""

    code: str
    message: str = ""
    details: Json = None

    @property
    def text(self) -> str:
        """The code and the message, or only the code when there is no message."""
        return f"{self.code}: {self.message}" if self.message else self.code
