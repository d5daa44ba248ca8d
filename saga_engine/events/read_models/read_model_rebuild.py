"""
Fill the table of a read model again, from the first event of a run that is stored.

One transaction deletes the rows, adds them again and saves the position, so a reader sees the old
rows until the new ones are complete, and one that is interrupted changes nothing. It needs neither
a second table nor more rights for workers. Its price is a transaction that lasts as long as reading
all journals: meanwhile PostgreSQL keeps rows that others delete, and retention waits.

The read model is paused meanwhile, so that no worker waits for its lock or reports that it does not
move.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from saga_engine.errors import Conflict, StoreError, TimedOut
from saga_engine.events.event_store import positions
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.projections import (
    projection_actions,
    projection_failures,
    projection_table,
)
from saga_engine.events.projections.projection_failures import Resolution
from saga_engine.events.projections.projection_table import ProjectionState, StoredProjection
from saga_engine.events.read_models import read_model_batch
from saga_engine.events.read_models.read_model import ReadModel
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import MAX_RESOLVED, Action, Operator
from saga_engine.postgres.statement import text
from saga_engine.store.database import Database, SqlAlchemyTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuiltReadModel:
    """
    A read model that was filled again.

    Args:
        from_position: of the first event of a run that is stored; 0: there is none.
        from_time: when that event was recorded.
        position: up to which all events are counted.
        runs_complete_from: from this position on all events of runs are stored. Retention has
            dropped runs before it, which are not counted any more.
    """

    from_position: int
    from_time: datetime | None
    position: int
    runs_complete_from: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadModelRebuild:
    """
    Fills a read model again.

    Args:
        database: of the engine, whose transactions may last long enough.
        model: which one.
        operator: who does it, and why.
        window: positions that one statement covers.
        timeout: seconds after which it is given up.
    """

    database: Database
    model: ReadModel
    operator: Operator
    window: int
    timeout: float

    async def run(self) -> RebuiltReadModel:
        """
        Fill it, and let it continue unless an operator had paused it before.

        Raises:
            NotFound: no worker has registered it.
            Conflict: PostgreSQL refuses a row of the journal. Nothing has changed.
            TimedOut: it took too long. Nothing has changed.
            StoreError: nothing has changed, unless the COMMIT was not answered; run it again.
        """
        async with self.database.transaction() as tx:
            before = await projection_actions.find(tx, self.model.name)
            await projection_table.set_state(
                tx, self.model, ProjectionState.PAUSED, [*ProjectionState]
            )
        try:
            async with asyncio.timeout(self.timeout), self.database.transaction() as tx:
                return await self._fill(tx, before)
        except TimeoutError:
            await self._restore(before.state)
            raise TimedOut(
                f"{self.model.name} was not filled again within {self.timeout:g} s. Nothing has"
                " changed. Raise SAGA_ENGINE_READ_MODEL_REBUILD_TIMEOUT, and run it again."
            ) from None
        except BaseException:
            await self._restore(before.state)
            raise

    async def _restore(self, state: ProjectionState) -> None:
        """Let it continue as before. If that fails, it stays paused, with the rows that it had."""
        with suppress(StoreError):
            async with self.database.transaction() as tx:
                paused = [ProjectionState.PAUSED]
                await projection_table.set_state(tx, self.model, state, paused)

    async def _fill(self, tx: SqlAlchemyTransaction, before: StoredProjection) -> RebuiltReadModel:
        await projection_table.lock_row(tx, before)
        log = await EventLog.load(tx)
        horizon = await positions.horizon(tx)
        first = (await tx.execute(_FIRST)).first()
        await tx.execute(text(f"DELETE FROM saga_engine.{self.model.table}"))  # noqa: S608 - a constant
        skipped = await self._skipped(tx)
        from_position = first.position if first else horizon + 1
        for after, until in ranges(from_position - 1, horizon, skipped, self.window):
            poison = await read_model_batch.apply_range(tx, log, self.model, after, until)
            if poison:
                raise Conflict(
                    f"{self.model.name} was not filled again: its row of stream"
                    f" {poison.recorded.stream} at position {poison.recorded.position} cannot be"
                    f" applied. {poison.error} Nothing has changed."
                )
        await projection_actions.resolve_failures(tx, before, self.operator)
        await self._save(tx, horizon, before)
        subject = projection_actions.audited(self.model.name, self.model.version)
        await operator_audit.record(tx, subject, Action.REBUILD, self.operator, horizon)
        return RebuiltReadModel(
            from_position=first.position if first else 0,
            from_time=first.recorded_at if first else None,
            position=horizon,
            runs_complete_from=await EventLog.runs_complete_from(tx),
        )

    async def _skipped(self, tx: SqlAlchemyTransaction) -> Sequence[int]:
        """The positions that an operator has skipped, which stay out."""
        resolved = await projection_failures.read_resolved(
            tx, self.model.name, self.model.version, MAX_RESOLVED
        )
        return sorted(each.position for each in resolved if each.resolution is Resolution.SKIPPED)

    async def _save(
        self, tx: SqlAlchemyTransaction, position: int, before: StoredProjection
    ) -> None:
        was_paused = before.state is ProjectionState.PAUSED
        state = ProjectionState.PAUSED if was_paused else ProjectionState.ACTIVE
        key = {"name": self.model.name, "version": self.model.version}
        await tx.execute(_SAVE, {**key, "position": position, "state": state.value})


def ranges(
    after: int, until: int, skipped: Sequence[int], window: int
) -> Iterator[tuple[int, int]]:
    """
    Cut the positions after *after* and up to *until* into ranges of a window, without some.

    Args:
        after: the position before the first one.
        until: the last position.
        skipped: rising positions that are in no range.
        window: positions in a range at most.
    """
    for end in [*(each for each in skipped if after < each <= until), until + 1]:
        while after < end - 1:
            reached = min(after + window, end - 1)
            yield after, reached
            after = reached
        after = end


_FIRST = text("SELECT position, recorded_at FROM saga_engine.journal ORDER BY position LIMIT 1")
_SAVE = text(
    """
    UPDATE saga_engine.projection
    SET position = :position, state = :state, missing_until = NULL, updated_at = clock_timestamp()
    WHERE name = :name AND version = :version"""
)
