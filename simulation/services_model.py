"""
The transactions of the simulated services: the barrier, and the tables of their handlers.

Each handler inserts an effect. A service that does not use the barrier deduplicates commands, as
docs/protocol.md describes: it performs an action once for each idempotency key, and never after its
compensation. A rejection is repeated for the same key, unless the service forgets rejections (see
`workload.SampledOutcomes`).
"""

from typing import Any, Literal

from saga_engine.participant.barrier import CommandResult
from saga_engine.participant.context import CommandContext
from saga_engine.vocabulary import Command, Direction
from simulation.barrier_model import BarrierModel
from simulation.event_model import EventModel

StepState = Literal["new", "never", "done", "compensated", "rejected"]
"""What a service that does not use the barrier knows about a step; `new` is to be handled."""


class ServicesTransaction(EventModel):
    """A transaction of a simulated service: a CommandTransaction, and what its handler gets."""

    is_connection_lost = False  # A handler's error is its own: no outage is simulated.

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
