"""
The model of a projection's tables: its checkpoint and lease, its rows, and its parked streams.

The code of a batch is the real one: `projection_batch` and what it uses, down to the transaction.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.poison_event import PoisonEvent
from saga_engine.events.handlers.sql_call import CallLimit
from saga_engine.events.projections.change_batch import ChangeBatch
from saga_engine.events.projections.event_application import Step
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_failures import ParkedStream
from simulation.event_model import NEW_READER
from simulation.memory_client import MemoryDatabaseClient
from simulation.rows import Row
from simulation.services_model import ServicesTransaction


class ProjectionTransactionModel:
    """A ProjectionTransaction in memory, of the only version of a projection."""

    def __init__(self, tx: ServicesTransaction, projection: Projection) -> None:
        self.tx = tx
        self._projection = projection
        self._name = projection.name

    async def acquire(self, owner: str, lease: float) -> int | None:
        return await self.tx.acquire_reader("projection", self._name, owner, lease)

    async def lock(self, position: int, owner: str) -> bool:
        async with self.tx.statement():
            row = await self.tx.lock("projection", self._name) or NEW_READER
            return (row["active"], row["position"], row["owner"]) == (True, position, owner)

    async def save(self, position: int, owner: str, lease: float) -> None:
        saved = {"position": position, **self.tx.lease(owner, lease)}
        await self._change_row(saved)

    async def stop(self) -> None:
        await self._change_row({"active": False, "owner": None, "leased_until": None})

    async def _change_row(self, changes: Row) -> None:
        async with self.tx.statement():
            row = self.tx.get("projection", self._name) or NEW_READER
            self.tx.put("projection", self._name, {**row, **changes})

    async def execute(self, steps: Sequence[Step], limit: CallLimit) -> None:
        del limit
        for step in steps:
            assert isinstance(step, ChangeBatch), "async functions are not modelled"
            await self.tx.write_changes(step, self._projection.tables)

    async def execute_checked(self, steps: Sequence[Step], limit: CallLimit) -> None:
        async with self.tx.savepoint():
            await self.execute(steps, limit)

    # events that could not be applied

    async def parked_streams(self) -> dict[str, int]:
        async with self.tx.statement():
            return {name: row["next_position"] for name, row in self.tx.scan("parked_stream")}

    async def retried_streams(self) -> list[ParkedStream]:
        async with self.tx.statement():
            rows = [ParkedStream(**row) for _, row in self.tx.scan("parked_stream")]
        requested = [each for each in rows if each.retry_requested_at is not None]
        return sorted(requested, key=lambda each: (each.retry_requested_at, each.stream))

    async def record_failure(self, poison: PoisonEvent) -> None:
        position = poison.recorded.position
        async with self.tx.statement():
            row = await self.tx.lock("projection_failure", position) or {"attempts": 0}
            failed = {"attempts": row["attempts"] + 1}
            self.tx.put("projection_failure", position, failed)

    async def was_resolved(self, position: int, seconds: float) -> bool:
        raise NotImplementedError(f"async functions are not modelled: {position}, {seconds}")

    async def park(self, recorded: Recorded) -> None:
        parked = ParkedStream(
            stream=recorded.stream,
            next_position=recorded.position,
            next_version=recorded.version,
            retry_requested_at=None,
        )
        await self._put_parked(parked)

    async def advance(self, following: ParkedStream) -> None:
        await self._put_parked(following)

    async def unpark(self, stream: str) -> None:
        async with self.tx.statement():
            await self.tx.lock("parked_stream", stream)
            self.tx.delete("parked_stream", stream)

    async def request_retries(self) -> None:
        """What an operator does: request that all parked streams are retried."""
        async with self.tx.statement():
            await self.tx.lock("projection", self._name)
        async with self.tx.statement():
            for stream, row in [*self.tx.scan("parked_stream")]:
                await self.tx.lock("parked_stream", stream)
                self.tx.put("parked_stream", stream, {**row, "retry_requested_at": self.tx.now})

    async def _put_parked(self, parked: ParkedStream) -> None:
        async with self.tx.statement():
            await self.tx.lock("parked_stream", parked.stream)
            row = {
                "stream": parked.stream,
                "next_position": parked.next_position,
                "next_version": parked.next_version,
                "retry_requested_at": parked.retry_requested_at,
            }
            self.tx.put("parked_stream", parked.stream, row)


class MemoryProjectionStore:
    """
    A ProjectionStore in memory.

    Args:
        client: of the database of the services.
        projection: the declaration.
    """

    def __init__(
        self, client: MemoryDatabaseClient[ServicesTransaction], projection: Projection
    ) -> None:
        self._client = client
        self._projection = projection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[ProjectionTransactionModel]:
        async with self._client.transaction() as tx:
            yield ProjectionTransactionModel(tx, self._projection)
