"""
What can happen to a run: the closed set of things `decide` answers.

Triggers arrive late, twice and out of order by design; none of them is ever an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeAlias, get_type_hints

from saga_engine.payload.annotations import split_optional
from saga_engine.payload.serialization import from_data, to_data
from saga_engine.vocabulary import Direction, Failure, Json, Outcome, Resolution


@dataclass(frozen=True, slots=True)
class Start:
    """Somebody asks for a run. Its saga and version are those of the definition it is given to."""

    run_id: str
    key: str | None
    input: Json


@dataclass(frozen=True, slots=True)
class ReplyReceived:
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
class MalformedReply:
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
    raw_text: Json = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CommandUnroutable:
    """
    The broker has no queue for this command.

    `first`: it had never been sent before, so the attempt is nowhere and did nothing. Of one that
    is sent again an earlier copy may have arrived.
    """

    step: str
    direction: Direction
    attempt: int
    first_send: bool = False


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Time has passed. Whatever is due by now is dealt with; often nothing is."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody wants the run undone."""

    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class ResolveIncident:
    """
    An operator acts on an incident.

    retry: read the kept reply again, or send again with a fresh budget of attempts. skip: go on
    without it. complete: it was done by hand, with `result` as the step's reply. reject: the
    participant did nothing, so the run turns back. abandon: close the run, effects stay.
    """

    incident_number: int
    resolution: Resolution
    operator: str
    reason: str
    result: Json = None


RunTrigger: TypeAlias = (
    ReplyReceived | MalformedReply | CommandUnroutable | WakeUp | Cancel | ResolveIncident
)
"""What can happen to a run that is there."""

Trigger: TypeAlias = Start | RunTrigger

TRIGGER_TYPES: Mapping[str, type[Trigger]] = {
    "start": Start,
    "reply": ReplyReceived,
    "malformed_reply": MalformedReply,
    "unroutable": CommandUnroutable,
    "wake_up": WakeUp,
    "cancel": Cancel,
    "resolve": ResolveIncident,
}
_TRIGGER_NAMES = {kind: name for name, kind in TRIGGER_TYPES.items()}


def serialize_trigger(trigger: Trigger) -> tuple[str, dict[str, Any]]:
    """
    The trigger's name and data, for a trigger that is recorded before it is decided.

    The run id and the key of a start are not in its data: they have columns of their own.
    """
    if isinstance(trigger, Start):
        return "start", {"input": trigger.input}
    return _TRIGGER_NAMES[type(trigger)], to_data(trigger)


def deserialize_trigger(name: str, data: Json, *, run_id: str, key: str | None = None) -> Trigger:
    """
    The trigger whose data this is; every value of it has the type that the trigger says.

    Args:
        run_id: the run that it is recorded for, which its data cannot change.
        key: the business key of a start.

    Raises:
        ValueError: it is not what `trigger_data` writes, in a sentence that quotes nothing of it.
    """
    trigger_type = TRIGGER_TYPES.get(name)
    if trigger_type is None or not isinstance(data, Mapping):
        raise ValueError(f"There is no such request, or its body is not an object: {name[:20]!r}.")
    try:
        trigger = (
            Start(run_id, key, **data) if trigger_type is Start else from_data(trigger_type, data)
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"Its body has other fields than a recorded {name} has.") from None
    if not _matches_type(trigger, trigger_type, optional=False) or not _is_consistent_reply(
        trigger
    ):
        raise ValueError(f"A field of its body has another type than that of a recorded {name}.")
    return trigger


def _is_consistent_reply(trigger: Trigger) -> bool:
    """Whether a reply says what a participant can say: a failure has its reason, no other has."""
    if not isinstance(trigger, ReplyReceived):
        return True
    succeeded = trigger.outcome is Outcome.SUCCEEDED
    return trigger.outcome is not Outcome.UNKNOWN and succeeded == (trigger.failure is None)


def _matches_type(value: Any, field_type: Any, *, optional: bool) -> bool:
    """Whether a value is of the type that the field of a trigger is declared with."""
    if value is None and optional:
        return True
    if is_dataclass(field_type):
        assert isinstance(field_type, type)
        return isinstance(value, field_type) and all(
            _matches_type(getattr(value, name), inner, optional=nullable)
            for name, inner, nullable in _field_types(field_type)
        )
    if field_type is int:  # each counts something, from 1; a bool is not a number
        return type(value) is int and 0 < value < 2**31
    if isinstance(field_type, type) and issubclass(field_type, str | bool | StrEnum):
        return isinstance(value, field_type)
    return True  # Json: whatever was read


@cache
def _field_types(record_type: Any) -> tuple[tuple[str, Any, bool], ...]:
    hints = get_type_hints(record_type)
    return tuple((item.name, *split_optional(hints[item.name])) for item in fields(record_type))
