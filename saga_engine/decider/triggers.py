"""
What can happen to a run: the closed set of inputs of `decide`.

Triggers arrive late, twice and out of order by design; none of them is ever an error.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from saga_engine.vocabulary import Direction, Failure, Json, Outcome, Resolution


@dataclass(frozen=True, slots=True)
class Start:
    """A client asks for a run of the definition that is given to `decide` with it."""

    run_id: str
    key: str | None
    input: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyReceived:
    """A participant answered one attempt."""

    step: str
    direction: Direction
    attempt: int
    outcome: Outcome  # never unknown: only the engine concludes that, from a timeout
    body: Json = None  # the result of a success
    failure: Failure | None = None  # why it was rejected or failed


@dataclass(frozen=True, slots=True, kw_only=True)
class MalformedReply:
    """A reply with a valid correlation id that cannot be read."""

    step: str
    direction: Direction
    attempt: int
    problem: str
    outcome: Outcome | None = None  # of its header; None: it has none, or an unknown one
    raw_text: Json = field(default=None, repr=False)  # the beginning of its body


@dataclass(frozen=True, slots=True)
class CommandUnroutable:
    """The broker has no queue for this command."""

    step: str
    direction: Direction
    attempt: int
    never_delivered: bool = False  # its first publish: no queue has it. False: one may have a copy


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Time has passed. What is due by now is done; often nothing is."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """An operator or a client wants the run compensated."""

    operator: str  # the person or program that asks
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveIncident:
    """
    An operator acts on an incident.

    retry: read the kept reply again, or send again with a new budget of attempts. skip: go on
    without it. complete: it was done by hand, with `result` as the step's reply. reject: the
    participant did nothing, so the run compensates. abandon: close the run, effects stay.
    """

    incident_number: int
    resolution: Resolution
    operator: str
    reason: str
    result: Json = None


RunTrigger: TypeAlias = (
    ReplyReceived | MalformedReply | CommandUnroutable | WakeUp | Cancel | ResolveIncident
)
"""What can happen to a run that exists."""

Trigger: TypeAlias = Start | RunTrigger
