"""
Events as data: the name and the data of an event, as the journal has them.

The names stay in the database forever, so they are not made of the names of the classes.
"""

from collections.abc import Mapping
from typing import Any

from saga_engine.decider import events
from saga_engine.payload.serialization import from_data, to_data

EVENT_TYPES: Mapping[str, type[events.Event]] = {
    "run_started": events.RunStarted,
    "attempt_started": events.AttemptStarted,
    "attempt_failed": events.AttemptFailed,
    "step_succeeded": events.StepSucceeded,
    "step_rejected": events.StepRejected,
    "step_given_up": events.StepGivenUp,
    "step_skipped": events.StepSkipped,
    "step_completed": events.StepCompleted,
    "run_stopping": events.RunStopping,
    "stop_superseded": events.StopSuperseded,
    "run_compensating": events.RunCompensating,
    "incident_opened": events.IncidentOpened,
    "incident_resolved": events.IncidentResolved,
    "run_completed": events.RunCompleted,
    "run_compensated": events.RunCompensated,
    "run_abandoned": events.RunAbandoned,
}
_EVENT_NAMES = {kind: name for name, kind in EVENT_TYPES.items()}


def serialize_event(event: events.Event) -> tuple[str, dict[str, Any]]:
    """The event's type name and data, for the journal."""
    return _EVENT_NAMES[type(event)], to_data(event)


def deserialize_event(name: str, data: Mapping[str, Any]) -> events.Event:
    """The event that `serialize_event` wrote."""
    return from_data(EVENT_TYPES[name], data)
