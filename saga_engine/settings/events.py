"""Settings of the event store: how large events, appends and pages may be."""

from typing import Annotated

from pydantic import BaseModel, Field

from saga_engine.settings.field_types import Bytes, Count


class EventSettings(BaseModel):
    """How large an event and an append may be, and how much of the log is read at once."""

    max_event_bytes: Bytes = Field(
        262_144,
        description="Maximum size, in bytes, of the data of an event. The default is that of a"
        " message body: store what is larger elsewhere, and its address in the event",
    )
    max_stream_name_bytes: Annotated[int, Field(ge=64, le=2000)] = Field(
        255,
        description="Maximum length, in bytes, of the name of a stream and of an event type. The"
        " default is far below the 2,700 bytes of a PostgreSQL index entry",
    )
    max_append_events: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        100_000,
        description="Maximum number of events in one append. Readers of all events wait for the"
        " transaction that appends, and 100,000 events take several seconds: raise"
        " database_transaction_timeout with it",
    )
    event_append_attempts: Count = Field(
        50,
        description="How often an append that expects no exact version is tried when another"
        " transaction appends to the stream first. Each attempt waits for that transaction; the"
        " default serves 50 writers of one stream",
    )
    command_attempts: Count = Field(
        50,
        description="How often Events.handle loads an aggregate and decides a command when other"
        " transactions append to its stream first. One of them is first in each attempt, so the"
        " default serves 50 writers of one stream",
    )
    snapshot_interval: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        100,
        description="Number of events after which the next command writes a snapshot of its"
        " aggregate. Replaying 100 events takes a few milliseconds",
    )
    replay_pages: Count = Field(
        10,
        description="How many pages of a stream, each of event_batch_size events, one transaction"
        " of Events.handle replays. A longer replay continues in further transactions, because"
        " 10,000 events take about a second and database_transaction_timeout ends a transaction",
    )
    max_schema_versions: Annotated[int, Field(ge=2, le=10_000)] = Field(
        200,
        description="Maximum number of schemas that are registered of one event, command or reply."
        " All of them are read when a new one is judged. The default is a change a week for four"
        " years",
    )
    max_known_schemas: Count = Field(
        1000,
        description="Maximum number of versions of events whose registered schemas a process keeps"
        " in memory to write or read Avro, about 50 kB each; others are read again when they are"
        " needed. The default is more than most services have",
    )
    event_batch_size: Annotated[int, Field(ge=1, le=10_000)] = Field(
        1000,
        description="Maximum number of events that one statement appends or reads. A larger number"
        " saves less than 10 % of the time per event",
    )
    event_batch_bytes: Bytes = Field(
        8_388_608,
        description="Maximum total size, in bytes, of the data of the events that one statement"
        " appends or reads, unless a single event is larger. A reader's memory is bounded by it",
    )
    event_window: Annotated[int, Field(ge=100, le=10_000_000)] = Field(
        10_000,
        description="Maximum number of positions that one statement of a reader of all events"
        " covers. It bounds the time of a statement whose filter accepts few events",
    )
