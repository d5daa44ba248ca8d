"""
The transactions of the simulated services: the barrier, and the tables of their handlers.

Each handler inserts an effect. A service that does not use the barrier deduplicates commands, as
docs/protocol.md describes: it performs an action once for each idempotency key, and never after its
compensation. A rejection is repeated for the same key, unless the service forgets rejections (see
`workload.SampledOutcomes`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Literal

from saga_engine.participant.barrier import CommandResult
from saga_engine.participant.context import CommandContext
from saga_engine.vocabulary import Command, Direction
from simulation.barrier_model import BarrierModel
from simulation.event_model import EventModel
from simulation.memory_client import MemoryDatabaseClient
from simulation.rows import Row

StepState = Literal["new", "never", "done", "compensated", "rejected"]
"""What a service that does not use the barrier knows about a step; `new` is to be handled."""


class ServicesTransaction(EventModel):
    """
    A transaction of a simulated service, and what its handler gets.

    It is a CommandTransaction, and a SharedTransaction for the commands of a batch.
    """

    is_connection_lost = False  # A handler's error is its own: no outage is simulated.
    state_changed = False  # The handlers of the simulation change none.
    _saved: Mapping[str, Mapping[Any, Row | None]] = MappingProxyType({})

    @property
    def barrier(self) -> BarrierModel:
        """The barrier's table in this transaction."""
        return BarrierModel(self)

    @property
    def connection(self) -> object:
        """What the handler gets: the transaction itself."""
        return self

    async def commit_result(self, command: Command, result: CommandResult) -> bool:
        """Record the result; the transaction commits at the end of its block."""
        return await self.barrier.record_result(command, result)

    def open_connection(self) -> object:
        """What the next handler of a batch gets."""
        return self

    def close_connection(self) -> None:
        """Nothing outlives a handler here."""

    def abandon(self) -> None:
        """A handler that was cancelled does not continue here."""

    @property
    def is_usable(self) -> bool:
        """Whether the transaction is open; handlers do not end it here."""
        return self.is_active

    async def set_savepoint(self) -> None:
        """Set a savepoint in the place of the one before."""
        async with self.statement():
            self._saved = {table: dict(writes) for table, writes in self.writes.items()}

    async def roll_back_to_savepoint(self) -> None:
        """Undo what was done since the savepoint."""
        async with self.statement():
            self.writes = defaultdict(
                dict, {name: dict(each) for name, each in self._saved.items()}
            )

    async def commit_results(self, results: Sequence[tuple[Command, CommandResult | None]]) -> bool:
        """Record the results; the transaction commits at the end of its block."""
        return await self.barrier.record_all(results)

    async def insert_effect(self, context: CommandContext, *, has_event: bool = False) -> None:
        """Insert the effect of a command, of which the handler may append an event."""
        async with self.statement():
            row = {**_command_columns(context), "has_event": has_event}
            self.put("effect", self.next_value("effect"), row)

    async def deduplicate(self, context: CommandContext) -> StepState:
        """Return `new` once for each direction, then the state; `never`: nothing to compensate."""
        async with self.statement():
            step_key = _step_key(context)
            row = await self.lock("deduplication", step_key) or {
                "state": "never",
                "rejected_keys": (),
            }
            state: StepState = row["state"]
            if context.direction is Direction.ACTION:
                key = context.idempotency_key
                if key in row["rejected_keys"]:
                    return "rejected"
                if state == "never" or (state == "done" and row["key"] != key):
                    self.put("deduplication", step_key, {**row, "state": "done", "key": key})
                    return "new"
                return state
            self.put("deduplication", step_key, {**row, "state": "compensated"})
            return "new" if state == "done" else state

    async def record_rejection(self, context: CommandContext) -> None:
        """Record that an action was rejected, after `deduplicate`."""
        async with self.statement():
            step_key = _step_key(context)
            row = self.get("deduplication", step_key)
            assert row is not None, "the step was deduplicated before"
            keys = (*row["rejected_keys"], context.idempotency_key)
            self.put("deduplication", step_key, {"state": "never", "rejected_keys": keys})


class ServicesDatabase(MemoryDatabaseClient[ServicesTransaction]):
    """A BatchDatabase: the connection of one participant to the database of the services."""

    def shared_transaction(self) -> AbstractAsyncContextManager[ServicesTransaction]:
        """Open a transaction of several commands."""
        return self.transaction()


def _step_key(context: CommandContext) -> tuple[str, str]:
    return str(context.run_id), context.step


def _command_columns(context: CommandContext) -> dict[str, Any]:
    return {
        "run_id": str(context.run_id),
        "step": context.step,
        "direction": context.direction.value,
        "idempotency_key": context.idempotency_key,
        "attempt": context.attempt,
    }
