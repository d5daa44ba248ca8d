"""
What can happen to a run: the closed set of things `decide` answers.

Triggers arrive late, twice and out of order by design; none of them is ever an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from saga_engine.saga.record import from_data, to_data
from saga_engine.saga.run import Failure
from saga_engine.saga.vocabulary import Direction, Json, Outcome, Resolution


@dataclass(frozen=True, slots=True)
class Start:
    """Somebody asks for a run. Its saga and version are those of the definition it is given to."""

    run_id: str
    key: str | None
    input: Json


@dataclass(frozen=True, slots=True)
class Replied:
    """
    A participant answered one attempt.

    `body` is the result of a success; `failure` says why it was rejected or failed. `outcome` is
    never unknown: that is concluded, not told.
    """

    step: str
    direction: Direction
    attempt: int
    outcome: Outcome
    body: Json = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Garbled:
    """
    A reply with a genuine correlation id that cannot be read.

    `outcome` is what its header says, None if that is none of the three. `text` is the beginning
    of its body, sealed where a codec is set.
    """

    step: str
    direction: Direction
    attempt: int
    problem: str
    outcome: Outcome | None = None
    text: Json = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Returned:
    """
    The broker has no queue for this command.

    `first`: it had never been sent before, so the attempt is nowhere and did nothing. Of one that
    is sent again an earlier copy may have arrived.
    """

    step: str
    direction: Direction
    attempt: int
    first: bool = False


@dataclass(frozen=True, slots=True)
class Woken:
    """Time has passed. Whatever is due by now is dealt with; often nothing is."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody wants the run undone."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resolve:
    """
    An operator acts on an incident.

    retry: read the kept reply again, or send again with a fresh budget of attempts. skip: go on
    without it. complete: it was done by hand, with `result` as the step's reply. reject: the
    participant did nothing, so the run turns back. abandon: close the run, effects stay.
    """

    incident: int
    resolution: Resolution
    by: str
    reason: str
    result: Json = None


Later: TypeAlias = Replied | Garbled | Returned | Woken | Cancel | Resolve
"""What can happen to a run that is there."""

Trigger: TypeAlias = Start | Later

TRIGGERS: Mapping[str, type[Trigger]] = {
    "start": Start,
    "reply": Replied,
    "garbled": Garbled,
    "returned": Returned,
    "woken": Woken,
    "cancel": Cancel,
    "resolve": Resolve,
}
_NAMES = {kind: name for name, kind in TRIGGERS.items()}


def trigger_data(trigger: Trigger) -> tuple[str, dict[str, Any]]:
    """The trigger's name and data, for a trigger that is recorded before it is decided."""
    return _NAMES[type(trigger)], to_data(trigger)


def recorded_trigger(name: str, data: Mapping[str, Any]) -> Trigger:
    """
    The trigger that `trigger_data` wrote.

    Raises:
        KeyError, TypeError, ValueError: it was not written by `trigger_data`.
    """
    if not isinstance(data, Mapping):
        raise TypeError(name)
    return from_data(TRIGGERS[name], data)
