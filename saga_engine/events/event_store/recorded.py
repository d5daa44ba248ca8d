"""One event: as it is read from a stream, and as it is appended to one."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import orjson

from saga_engine.errors import UnreadableEvent
from saga_engine.events.event_store.stored_fields import StoredFields, unreadable_data
from saga_engine.vocabulary import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded(StoredFields):
    """
    An event as it is read.

    Args:
        stream: `order-o-1` of an aggregate, `run-<run id>` of a run.
        version: its number in the stream, from 1; of a run, the row of its journal, with gaps where
            rows have no events.
        place: which event of that row, from 0; 0 in every other stream.
        position: its number in the database. Positions rise in each stream, with gaps.
        type: its name, `order-placed`.
        schema_version: the version of its type that wrote `data`, from 1.
        recorded_at: the time of the database when its transaction appended it.
        id: always the same, and different for each event of all databases.
        data: its content as JSON.
        correlation_id: what it belongs to: a request, a run.
        causation_id: the message or the event that caused it.
        actor: who or what asked for it.
        schema_id: of the registered schema of its class; None if it was not registered when the
            event was appended, and for data that no class has written.
    """

    stream: str
    version: int
    place: int = 0
    position: int
    type: str
    schema_version: int
    recorded_at: datetime
    id: UUID
    data: Json = field(repr=False)
    correlation_id: str | None = None
    causation_id: str | None = None
    actor: str | None = None
    schema_id: int | None = None


_ONE_LINE = dict.fromkeys(map(ord, "\r\n"), " ")


def data_json(event: Recorded) -> bytes:
    """
    Give the data of an event as JSON on one line: as it is stored, with all digits of its numbers.

    Raises:
        UnreadableEvent: it cannot be read, or is nested too deep to be written.
    """
    try:
        written = orjson.dumps(event.data)
    except TypeError:
        raise unreadable_data(event) from None
    stored = event.stored_json()
    if stored is None:
        return written
    # A line can only end between the parts of the JSON: its texts have it as \n. Few have such an
    # end, and to look for one takes a tenth of the time of `translate`.
    if "\n" in stored or "\r" in stored:
        stored = stored.translate(_ONE_LINE)
    return stored.encode()


def copied_data(event: Recorded) -> Json:
    """
    Copy the data of an event.

    Raises:
        UnreadableEvent: as `data_json`.
    """
    data: Json = orjson.loads(data_json(event))
    return data


@dataclass(frozen=True, slots=True)
class EventData:
    """
    An event as it is appended.

    Args:
        type: its name, `order-placed`.
        schema_version: the version of its type that wrote `data`, from 1.
        data: its content as JSON.
        fingerprint: of the schema of its class; None for data that no class has written. If that
            schema is registered, the event is stored with its id.
    """

    type: str
    schema_version: int
    data: Json = field(repr=False)
    fingerprint: str | None = field(default=None, repr=False, compare=False)


def unreadable(recorded: Recorded, problem: str, fix: str) -> UnreadableEvent:
    """Make the error that names a stored event."""
    return UnreadableEvent(
        stream=recorded.stream,
        version=recorded.version,
        event_type=recorded.type,
        problem=problem,
        fix=fix,
    )
