"""
The events of the workload: an aggregate, two projections and a feed.

    saga-engine projector tests.faults.event_workload

Each effect of a participant appends to two streams, in the transaction of its barrier: `job-<job>`,
an aggregate whose steps may compete for it, and `effect-<job>/<step>`, which the action begins and
its compensation continues.
"""

from typing import Any

from pydantic import BaseModel
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.events import (
    NEW,
    Aggregate,
    Append,
    Change,
    EventData,
    Feed,
    Projection,
    Recorded,
    add,
    append_in,
    delete,
    handle_in,
    insert,
    put,
    upsert,
)
from saga_engine.store.event_data import EVENT_TYPES as RUN_EVENT_TYPES

EFFECT_DONE, EFFECT_UNDONE = "effect-done", "effect-undone"


class EffectRecorded(BaseModel):
    """`number` is the version that the command was decided for."""

    step: str
    direction: str
    number: int


class JobState(BaseModel):
    number: int = 0


class RecordEffect(BaseModel):
    step: str
    direction: str


jobs = Aggregate("job", state=JobState)


@jobs.event("effect-recorded")
def effect_recorded(_: JobState, event: EffectRecorded) -> JobState:
    return JobState(number=event.number)


@jobs.command
def record_effect(job: JobState, command: RecordEffect) -> EffectRecorded:
    return EffectRecorded(number=job.number + 1, **command.model_dump())


async def append_effect(tx: AsyncConnection, job_id: str, step: str, direction: str) -> None:
    """Append the events of an effect in its transaction."""
    await handle_in(tx, jobs, job_id, RecordEffect(step=step, direction=direction))
    is_action = direction == "action"
    data = {"job_id": job_id, "step": step}
    await append_in(
        tx,
        Append(
            f"effect-{job_id}/{step}",
            [EventData(EFFECT_DONE if is_action else EFFECT_UNDONE, 1, data)],
            expected=NEW if is_action else 1,
        ),
    )


metadata = MetaData()
stream_view = Table(
    "stream_view",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("events", BigInteger, nullable=False, server_default="0"),
    Column("last_type", Text, nullable=False),
    Column("last_position", BigInteger, nullable=False),
)
effect_view = Table(
    "effect_view",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("changes", BigInteger, nullable=False, server_default="0"),
)
type_count = Table(
    "type_count",
    metadata,
    Column("type", Text, primary_key=True),
    Column("events", BigInteger, nullable=False, server_default="0"),
)
unfinished_run = Table("unfinished_run", metadata, Column("stream", Text, primary_key=True))
event_record = Table(
    "event_record",
    metadata,
    Column("number", BigInteger, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("stream", Text, nullable=False),
)

CHANGED_TABLES = (stream_view, effect_view, type_count, unfinished_run)
STARTED, COMPLETED, COMPENSATED = "run_started", "run_completed", "run_compensated"
HELD = "held"  # Appended by a fault, in a transaction that stays open.
RECORDED_TYPES = ("effect-recorded", HELD, STARTED, COMPLETED, COMPENSATED)

changed = Projection("changed", version=1, tables=CHANGED_TABLES)
"""Declared changes, of every event of a run and of an effect."""


def _count(recorded: Recorded) -> list[Change]:
    last = {"last_type": recorded.type, "last_position": recorded.position}
    return [
        upsert(stream_view, key={"stream": recorded.stream}, put=last, add={"events": 1}),
        upsert(type_count, key={"type": recorded.type}, add={"events": 1}),
    ]


@changed.on(EffectRecorded)
def count_effect(_: EffectRecorded, recorded: Recorded) -> list[Change]:
    return _count(recorded)


@changed.on(EFFECT_DONE)
def insert_effect(_: Any, recorded: Recorded) -> list[Change]:
    return [insert(effect_view, key={"stream": recorded.stream}, put={"status": "done"})]


@changed.on(EFFECT_UNDONE)
def change_effect(_: Any, recorded: Recorded) -> list[Change]:
    key = {"stream": recorded.stream}
    return [
        put(effect_view, key=key, values={"status": "undone"}),
        add(effect_view, key=key, values={"changes": 1}),
    ]


@changed.on(STARTED)
def start_run(_: Any, recorded: Recorded) -> list[Change]:
    return [*_count(recorded), insert(unfinished_run, key={"stream": recorded.stream})]


def _finish(_: Any, recorded: Recorded) -> list[Change]:
    return [*_count(recorded), delete(unfinished_run, key={"stream": recorded.stream})]


def _continue(_: Any, recorded: Recorded) -> list[Change]:
    return _count(recorded)


for name in (HELD, *RUN_EVENT_TYPES):
    if name in (COMPLETED, COMPENSATED):
        changed.on(name)(_finish)
    elif name != STARTED:
        changed.on(name)(_continue)


recorded_events = Projection("recorded", version=1, tables=[event_record])
"""A row for each event of some types, numbered by SQL in the order in which they were read."""


async def _record(_: Any, recorded: Recorded, connection: AsyncConnection) -> None:
    values = {"position": recorded.position, "stream": recorded.stream}
    await connection.execute(_INSERT_RECORD, values)


for name in RECORDED_TYPES:
    recorded_events.on(name)(_record)

everything = Feed("everything")
"""All events of the database, to the exchange."""
everything.to_exchange()

_INSERT_RECORD = text(
    "INSERT INTO event_record"
    " SELECT coalesce(max(number), 0) + 1, :position, :stream FROM event_record"
)
