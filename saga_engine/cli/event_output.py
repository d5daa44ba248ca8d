"""Events of streams as `streams read` and `tail` print them: documents, and rows for people."""

from typing import Any

import orjson

from saga_engine.errors import UnreadableEvent
from saga_engine.events.event_store.recorded import Recorded, data_json


def event_json(event: Recorded) -> dict[str, Any]:
    """
    Return an event as it is in a document.

    One whose data cannot be read has null instead, and `unreadable` says why.
    """
    data, problem = _data_or_problem(event)
    return {
        "id": event.id,
        "stream": event.stream,
        "version": event.version,
        "place": event.place,
        "position": event.position,
        "type": event.type,
        "schema_version": event.schema_version,
        "schema_id": event.schema_id,
        "recorded_at": event.recorded_at,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "actor": event.actor,
        "data": data and orjson.Fragment(data),
        **({"unreadable": problem} if problem else {}),
    }


def data_text(event: Recorded) -> str:
    """Return the data of an event as JSON on one line, or why it cannot be read."""
    data, problem = _data_or_problem(event)
    return f"({problem})" if data is None else data.decode()


def _data_or_problem(event: Recorded) -> tuple[bytes | None, str]:
    try:
        return data_json(event), ""
    except UnreadableEvent as error:
        return None, error.problem
