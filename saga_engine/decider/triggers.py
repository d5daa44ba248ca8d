"""
What can happen to a run: the closed set of things `decide` answers.

Triggers arrive late, twice and out of order by design; none of them is ever an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeAlias, get_type_hints

from saga_engine.payload.annotations import without_none
from saga_engine.payload.serialization import from_data, to_data
from saga_engine.vocabulary import Direction, Failure, Json, Outcome, Resolution


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
    """
    The trigger's name and data, for a trigger that is recorded before it is decided.

    The run id and the key of a start are not in its data: they have columns of their own.
    """
    if isinstance(trigger, Start):
        return "start", {"input": trigger.input}
    return _NAMES[type(trigger)], to_data(trigger)


def recorded_trigger(name: str, data: Json, *, run_id: str, key: str | None = None) -> Trigger:
    """
    The trigger whose data this is; every value of it has the type that the trigger says.

    Args:
        run_id: the run that it is recorded for, which its data cannot change.
        key: the business key of a start.

    Raises:
        ValueError: it is not what `trigger_data` writes, in a sentence that quotes nothing of it.
    """
    kind = TRIGGERS.get(name)
    if kind is None or not isinstance(data, Mapping):
        raise ValueError(f"There is no such request, or its body is not an object: {name[:20]!r}.")
    try:
        found = Start(run_id, key, **data) if kind is Start else from_data(kind, data)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"Its body has other fields than a recorded {name} has.") from None
    if not _fits(found, kind, optional=False) or not _is_told(found):
        raise ValueError(f"A field of its body has another type than that of a recorded {name}.")
    return found


def _is_told(trigger: Trigger) -> bool:
    """Whether a reply says what a participant can say: a failure has its reason, no other has."""
    if not isinstance(trigger, Replied):
        return True
    done = trigger.outcome is Outcome.SUCCEEDED
    return trigger.outcome is not Outcome.UNKNOWN and done == (trigger.failure is None)


def _fits(value: Any, kind: Any, *, optional: bool) -> bool:
    """Whether a value is of the type that the field of a trigger is declared with."""
    if value is None and optional:
        return True
    if is_dataclass(kind):
        assert isinstance(kind, type)
        return isinstance(value, kind) and all(
            _fits(getattr(value, name), inner, optional=may) for name, inner, may in _plan(kind)
        )
    if kind is int:  # each counts something, from 1; a bool is not a number
        return type(value) is int and 0 < value < 2**31
    if isinstance(kind, type) and issubclass(kind, str | bool | StrEnum):
        return isinstance(value, kind)
    return True  # Json: whatever was read


@cache
def _plan(kind: Any) -> tuple[tuple[str, Any, bool], ...]:
    hints = get_type_hints(kind)
    return tuple((item.name, *without_none(hints[item.name])) for item in fields(kind))
