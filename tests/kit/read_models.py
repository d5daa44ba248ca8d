"""The engine's read models in tests: applying one, and what its table has."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from saga_engine.decider.events import Event
from saga_engine.events.event_store import positions
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.read_models.read_model import ReadModel
from saga_engine.events.read_models.read_model_batch import ReadModelApplier
from saga_engine.events.read_models.read_models import ReadModels, register
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from saga_engine.store.database import Database, SqlAlchemyTransaction
from tests.kit.events import EventRecorder
from tests.kit.run_histories import RunHistory, append_histories, random_history

SAGA = "place-order"
FAST = {
    "projection_lease": 0.3,
    "read_model_interval": 0.02,
    "event_poll_interval_max": 0.05,
    "event_poll_interval": 0.005,
    "projection_monitor_interval": 0.02,
    "event_window": 100,
}


@asynccontextmanager
async def running_read_models(
    url: str, **settings: Any
) -> AsyncIterator[tuple[ReadModels, EventRecorder]]:
    """The read models in the test's process while the block runs, and what they emit."""
    emitted, stop = EventRecorder(), asyncio.Event()
    chosen = Settings(**{**FAST, "database_url": url, **settings})
    async with ReadModels(chosen, emitted) as models, asyncio.TaskGroup() as tasks:
        tasks.create_task(models.run(stop))
        try:
            yield models, emitted
        finally:
            stop.set()


async def append_random(
    database: Database, rng: Random, definition_id: int, number: int
) -> list[RunHistory]:
    """Append the journals of that many random runs."""
    histories = [random_history(rng, SAGA) for _ in range(number)]
    async with database.transaction() as tx:
        await append_histories(tx, rng, histories, definition_id)
    return histories


async def table_rows(database: Database, model: ReadModel) -> list[tuple[Any, ...]]:
    """The rows of a read model, in the order of its key."""
    async with database.transaction() as tx:
        rows = await tx.execute(text(f"SELECT * FROM saga_engine.{model.table}"))
        return sorted(tuple(row) for row in rows)


async def last_position(database: Database) -> int:
    """The horizon."""
    async with database.transaction() as tx:
        return await positions.horizon(tx)


async def apply_all(database: Database, model: ReadModel, windows: Random | None = None) -> None:
    """Apply the journals from the beginning: at once, or in windows of random sizes."""
    position, last = 0, await last_position(database)
    async with database.transaction() as tx:
        while position < last:
            until = last if windows is None else position + windows.randint(1, 400)
            await tx.execute(model.statement, {"after": position, "until": min(until, last)})
            position = until


async def is_equal_in_any_windows(database: Database, model: ReadModel) -> list[tuple[Any, ...]]:
    """Apply a read model at once, and again in other batches: the rows must be equal."""
    await apply_all(database, model)
    at_once = await table_rows(database, model)
    async with database.transaction() as tx:
        await tx.execute(text(f"DELETE FROM saga_engine.{model.table}"))
    await apply_all(database, model, Random(1))
    assert await table_rows(database, model) == at_once
    return at_once


async def applier(database: Database, model: ReadModel, owner: str = "a") -> ReadModelApplier:
    """What applies the batches of a registered read model, as its owner if it has none."""
    async with database.transaction() as tx:
        await register(tx)
        log = await EventLog.load(tx)
    made = ReadModelApplier(database=database, log=log, model=model, owner=owner, lease=60.0)
    await made.acquire()
    return made


async def damage_row(tx: SqlAlchemyTransaction, position: int) -> None:
    """Let no read model read the row of the journal at a position."""
    broken = text("UPDATE saga_engine.journal SET events = '{}' WHERE position = :position")
    await tx.execute(broken, {"position": position})


def events_of(history: RunHistory, kind: type[Event]) -> list[Any]:
    """The events of a run that are of one class."""
    return [each for each in history.events if isinstance(each, kind)]
