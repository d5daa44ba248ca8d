"""
Triggers as data: the kind and the body of a request that is stored before it is decided.

Rows may come from other roles, so what is read is checked value by value.
"""

from collections.abc import Mapping
from typing import Any

from saga_engine.decider.triggers import (
    Cancel,
    CommandUnroutable,
    MalformedReply,
    ReplyReceived,
    ResolveIncident,
    Start,
    Trigger,
    WakeUp,
)
from saga_engine.payload.serialization import from_data, has_declared_types, to_data
from saga_engine.store.pending_requests import RequestKind
from saga_engine.vocabulary import Json, Outcome

TRIGGER_TYPES: Mapping[str, type[Trigger]] = {
    RequestKind.START: Start,
    RequestKind.REPLY: ReplyReceived,
    RequestKind.MALFORMED_REPLY: MalformedReply,
    RequestKind.UNROUTABLE: CommandUnroutable,
    RequestKind.WAKE_UP: WakeUp,
    RequestKind.CANCEL: Cancel,
    RequestKind.RESOLVE: ResolveIncident,
}
_REQUEST_KINDS = {TRIGGER_TYPES[kind]: kind for kind in RequestKind}


def serialize_trigger(trigger: Trigger) -> tuple[RequestKind, dict[str, Any]]:
    """
    The kind and the data of the request that stores a trigger until it is decided.

    The run id and the key of a start are not in its data: they have columns of their own.
    """
    if isinstance(trigger, Start):
        return RequestKind.START, {"input": trigger.input}
    return _REQUEST_KINDS[type(trigger)], to_data(trigger)


def deserialize_trigger(kind: str, data: Json, *, run_id: str, key: str | None = None) -> Trigger:
    """
    The trigger whose data this is; each of its values has the declared type.

    Args:
        kind: what the request asks for.
        run_id: the run that it is stored for, which its data cannot change.
        key: the business key of a start.

    Raises:
        ValueError: it is not what `serialize_trigger` writes; the sentence quotes nothing of it.
    """
    trigger_type = TRIGGER_TYPES.get(kind)
    if trigger_type is None or not isinstance(data, Mapping):
        raise ValueError(f"There is no such request, or its body is not an object: {kind[:20]!r}.")
    try:
        trigger = (
            Start(run_id, key, **data) if trigger_type is Start else from_data(trigger_type, data)
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"Its body has other fields than a recorded {kind} has.") from None
    if not has_declared_types(trigger) or not _is_consistent(trigger):
        raise ValueError(f"A field of its body has another type than that of a recorded {kind}.")
    return trigger


def _is_consistent(trigger: Trigger) -> bool:
    """Whether a reply is one that a participant can send: only a success has no failure."""
    if not isinstance(trigger, ReplyReceived):
        return True
    succeeded = trigger.outcome is Outcome.SUCCEEDED
    return trigger.outcome is not Outcome.UNKNOWN and succeeded == (trigger.failure is None)
