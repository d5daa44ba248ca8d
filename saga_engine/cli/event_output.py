"""Events of streams as `streams read` and `tail` print them: documents, and rows for people."""

from typing import Any

import orjson

from saga_engine.events.recorded import Recorded


def event_json(event: Recorded) -> dict[str, Any]:
    """Return an event as it is in a document."""
    return {
        "id": event.id,
        "stream": event.stream,
        "version": event.version,
        "place": event.place,
        "position": event.position,
        "type": event.type,
        "schema_version": event.schema_version,
        "recorded_at": event.recorded_at,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "actor": event.actor,
        "data": event.data,
    }


def data_text(event: Recorded) -> str:
    """Return the data of an event as JSON on one line."""
    return orjson.dumps(event.data).decode()
