"""
One batch of a read model: what it adds and its checkpoint, in one transaction.

If PostgreSQL refuses the statement because of the data, the range is applied in halves under
savepoints, until the row of the journal that cannot be applied is alone. The rows before it are
committed, and the read model stops there.
"""

from dataclasses import dataclass

from saga_engine.errors import StoreRefused
from saga_engine.events.event_store import positions
from saga_engine.events.event_store.append import RUN_PREFIX
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.event_store.savepoint import savepoint
from saga_engine.events.handlers.poison_event import PoisonEvent
from saga_engine.events.projections import projection_failures, projection_table
from saga_engine.events.projections.projection_table import ProjectionState
from saga_engine.events.read_models.read_model import ReadModel
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.postgres.sqlalchemy_errors import translate_error
from saga_engine.postgres.statement import text
from saga_engine.store.database import Database, SqlAlchemyTransaction


@dataclass(frozen=True, slots=True)
class ReadModelBatch:
    """
    What has become of a batch.

    Args:
        position: the checkpoint now.
        horizon: up to which position there was something to read.
        poison: the first event of the row of the journal that has stopped the read model.
    """

    position: int
    horizon: int
    poison: PoisonEvent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadModelApplier:
    """
    Applies the batches of one read model.

    Args:
        database: of the engine.
        log: of that database.
        model: a registered read model.
        owner: this process.
        lease: seconds for which a batch makes it the owner.
    """

    database: Database
    log: EventLog
    model: ReadModel
    owner: str
    lease: float

    async def acquire(self) -> int | None:
        """Take or renew the lease; the position to continue from, or None as for a projection."""
        async with self.database.transaction() as tx:
            return await projection_table.acquire(tx, self.model, self.owner, self.lease)

    async def apply_next(self, after: int, window: int) -> ReadModelBatch:
        """
        Apply the rows of the journal after the checkpoint, up to the horizon.

        Args:
            after: the checkpoint.
            window: how many positions at most.

        Raises:
            NotOwner: nothing was written; acquire the lease again.
            StoreError: whether the batch was committed is unknown; acquire the lease again.
        """
        async with self.database.transaction() as tx:
            horizon = await positions.horizon(tx)
            until = min(horizon, after + window)
            if until <= after:
                return ReadModelBatch(after, horizon)
            if not await projection_table.lock(tx, self.model, after, self.owner):
                raise NotOwner
            poison = await apply_range(tx, self.log, self.model, after, until)
            if poison:
                until = poison.recorded.position - 1
            await projection_table.save(tx, self.model, until, self.owner, self.lease)
            if poison:
                await self._stop(tx, poison)
        return ReadModelBatch(until, horizon, poison)

    async def _stop(self, tx: SqlAlchemyTransaction, poison: PoisonEvent) -> None:
        await projection_failures.record(tx, self.model, poison)
        active = [ProjectionState.ACTIVE]
        await projection_table.set_state(tx, self.model, ProjectionState.STOPPED, active)


async def apply_range(
    tx: SqlAlchemyTransaction, log: EventLog, model: ReadModel, after: int, until: int
) -> PoisonEvent | None:
    """
    Apply the rows of the journal in a range, up to the first one that PostgreSQL refuses.

    Args:
        tx: a transaction of the engine's database.
        log: of that database.
        model: a read model.
        after: the position before the range.
        until: the last position of the range.

    Returns:
        The row that was refused; None: all were applied.
    """
    try:
        async with savepoint(tx):
            await tx.execute(model.statement, {"after": after, "until": until})
    except Exception as error:
        refused = translate_error(error, "the database")
        if not isinstance(refused, StoreRefused):
            raise
        if until == after + 1:
            return await _poison_at(tx, log, until, str(refused))
        middle = (after + until) // 2
        return await apply_range(tx, log, model, after, middle) or await apply_range(
            tx, log, model, middle, until
        )
    return None


async def _poison_at(
    tx: SqlAlchemyTransaction, log: EventLog, position: int, error: str
) -> PoisonEvent:
    row = (await tx.execute(_ROW_AT, {"position": position})).one()
    stream = f"{RUN_PREFIX}{row.run_id}"
    recorded = Recorded(
        stream=stream,
        version=row.revision,
        position=position,
        type=row.type,
        schema_version=1,
        recorded_at=row.recorded_at,
        id=log.event_id(stream, row.revision, 0, row.recorded_at),
        data=None,
    )
    return PoisonEvent(recorded=recorded, error=error, trace="")


# What is not an array has no first event, and no type.
_ROW_AT = text(
    """
    SELECT run_id::text AS run_id, revision, recorded_at, coalesce(events->0->>'type', '') AS type
    FROM saga_engine.journal WHERE position = :position"""
)
