"""
The events of the simulated services: an aggregate, a projection and a feed; and a feed of runs.

Each effect of a run appends to the stream of that run, in the transaction of the barrier. Steps of
one run compete for its stream.
"""

from collections.abc import Callable
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import BigInteger, Column, MetaData, Table, Text

from saga_engine.events import Aggregate, Change, Feed, Projection, Recorded, replay, upsert
from saga_engine.events.aggregates.decision import decide
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.participant.context import CommandContext
from simulation.event_model import EventModel

LOG, ENGINE_LOG = EventLog(UUID(int=1)), EventLog(UUID(int=2), has_journal=True)


class EffectRecorded(BaseModel):
    """`number` is the version that the command was decided for."""

    step: str
    direction: str
    number: int


class EffectCount(BaseModel):
    effects: int = 0


class RecordEffect(BaseModel):
    step: str
    direction: str


effects = Aggregate("effects", state=EffectCount)


@effects.event("effect-recorded")
def effect_recorded(_: EffectCount, event: EffectRecorded) -> EffectCount:
    return EffectCount(effects=event.number)


@effects.command
def record_effect(count: EffectCount, command: RecordEffect) -> EffectRecorded:
    return EffectRecorded(number=count.effects + 1, **command.model_dump())


async def append_effect(tx: EventModel, context: CommandContext) -> None:
    """Do what `handle_in` does: load, decide, append."""
    stream = effects.stream(context.run_id)
    events = await tx.read_stream(LOG, stream)
    command = RecordEffect(step=context.step, direction=context.direction.value)
    decision = decide(effects, replay(effects, events), command)
    await tx.append(stream, len(events), decision.events)


metadata = MetaData()
stream_view = Table(
    "stream_view",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("events", BigInteger, nullable=False, server_default="0"),
    Column("last_position", BigInteger, nullable=False),
)
read_event = Table(
    "read_event",
    metadata,
    Column("position", BigInteger, primary_key=True),
    Column("stream", Text, nullable=False),
    Column("times", BigInteger, nullable=False, server_default="0"),
)


class FaultyCode(Exception):
    """What the function of a projection raises for an event that it was not written for."""


def _is_handled(_: Recorded) -> bool:
    return True


def declare_views(is_handled: Callable[[Recorded], bool] = _is_handled) -> Projection:
    """
    Declare the projection, which counts what it reads.

    Args:
        is_handled: the events that its function can apply; the stream of another one is parked.
    """
    declared = Projection(
        "views", version=1, tables=[stream_view, read_event], on_poison="park-stream"
    )

    @declared.on(EffectRecorded)
    def project_effect(_: EffectRecorded, recorded: Recorded) -> list[Change]:
        if not is_handled(recorded):
            raise FaultyCode(recorded.stream)
        return [
            upsert(
                stream_view,
                key={"stream": recorded.stream},
                put={"last_position": recorded.position},
                add={"events": 1},
            ),
            upsert(
                read_event,
                key={"position": recorded.position},
                put={"stream": recorded.stream},
                add={"times": 1},
            ),
        ]

    return declared


views = declare_views()
"""The projection with code that can apply every event."""

effect_feed = Feed("effects")
effect_feed.to_exchange()
run_feed = Feed("runs")
"""The journals of the runs, in the database of the engine."""
run_feed.to_exchange()
