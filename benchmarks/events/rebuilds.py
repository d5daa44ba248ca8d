"""
The cases `rebuild-folded` and `rebuild-copied`: a read model is filled from the first event.

The events are stored before, once for all cases. A projector applies them as a process of its own,
as it does in production. The time is from its lease to the last event.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import MetaData

from benchmarks.events import history_projection, orders, orders_projection
from benchmarks.events.event_database import EventDatabase, run_projector, start_event_database
from saga_engine.events import Projection


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One case: a module with one projection."""

    case: str
    module: str
    projection: Projection
    metadata: MetaData


REBUILDS = (
    Rebuild(
        "rebuild-folded",
        orders_projection.__name__,
        orders_projection.projection,
        orders_projection.METADATA,
    ),
    Rebuild(
        "rebuild-copied",
        history_projection.__name__,
        history_projection.projection,
        history_projection.METADATA,
    ),
)


async def measure(rebuilds: Sequence[Rebuild], events: int) -> AsyncIterator[Mapping[str, object]]:
    """Fill the read model of each case from the same *events* events."""
    async with start_event_database() as database:
        await orders.fill(database, events)
        for rebuild in rebuilds:
            await database.create_tables(rebuild.metadata)
            yield await _fill_read_model(database, rebuild, events)


async def _fill_read_model(
    database: EventDatabase, rebuild: Rebuild, events: int
) -> Mapping[str, object]:
    async with run_projector(database, rebuild.module, rebuild.projection.name) as projector:
        started_at, before = time.perf_counter(), projector.cpu_seconds()
        await projector.wait_for(events)
        seconds, after = time.perf_counter() - started_at, projector.cpu_seconds()
    return {
        "case": rebuild.case,
        "events": events,
        "events_per_s": round(events / seconds),
        "cpu_us_per_event": {
            name: round((after[name] - before[name]) * 1e6 / events, 1) for name in before
        },
    }
