"""
The cases `rebuild-folded` and `rebuild-copied`: a read model is filled from the first event.

The events are stored before, once for all cases. A projector applies them as a process of its own,
as it does in production. The time is from its lease to the last event.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import MetaData

from benchmarks.events import history_projection, orders, orders_projection
from benchmarks.events.event_database import EventDatabase, start_event_database
from benchmarks.events.running_reader import Reader, measure_speed, run_reader
from saga_engine.events import Projection


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One case: a module with one projection."""

    case: str
    module: str
    projection: Projection
    metadata: MetaData

    @property
    def reader(self) -> Reader:
        """The projector with that projection."""
        return Reader(
            name=self.projection.name, command=("projector", self.module), progress=_POSITION
        )


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
    async with run_reader(database, rebuild.reader) as projector:
        return {"case": rebuild.case, **await measure_speed(projector, 0, events)}


_POSITION = """
SELECT position FROM saga_engine.projection
WHERE name = $1 AND role = 'live' AND owner IS NOT NULL"""
