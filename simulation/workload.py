"""
What is played in a simulation: a saga, its input, and participants whose answers are drawn by lot.

The participants are the real kit over the model of PostgreSQL. What they do they write down in a
table of their own, in the transaction that does it: the ledger that the promises are held against.
"""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.participant.context import CommandContext
from saga_engine.participant.errors import Failed, Rejected
from saga_engine.participant.participant import Participant
from saga_engine.saga.definition import Saga, Step
from saga_engine.vocabulary import Direction, Json
from simulation.barrier_model import DID, REFUSED, REMEMBER
from simulation.memory_database import Database

SLOWEST = 50.0
"""Seconds a slow participant takes at the most: longer than most steps wait."""

SHARES = {Direction.ACTION: (0.07, 0.15, 0.21), Direction.COMPENSATION: (0.01, 0.11, 0.15)}
"""Up to where a lot between 0 and 1 means rejected, failed and slow; all above is done at once."""

DAWDLING = 0.3
"""How many commands a service without the barrier lets lie, so that a later attempt overtakes."""


@dataclass(frozen=True, slots=True)
class Play:
    """
    A saga to simulate.

    `input` is that of every run, `replies` are the results by command (null where there is none).
    `barrier`: whether its participants have a database, or see to themselves (see `barrier`).
    """

    saga: Saga
    input: Json
    replies: Mapping[str, Json] = field(default_factory=dict)
    barrier: bool = True


class Lots:
    """
    What each attempt meets with: the same for the same seed, whatever else happens.

    `forgetful`: a service without the barrier forgets what it refused, and may do it after all when
    an earlier attempt arrives late; the engine undoes it. docs/protocol.md demands that it
    remembers, and where persons have refused steps tried again it has to: there it is done twice.
    """

    def __init__(self, seed: int, *, forgetful: bool) -> None:
        self.forgetful = forgetful
        self._seed = seed
        self._calm = False

    def calm(self) -> None:
        """From now on everything is done at once."""
        self._calm = True

    async def meet(self, context: CommandContext) -> None:
        """Let an attempt meet with its lot, after what it did and before that is committed."""
        if self._calm:
            return
        lot = self._draw(context, "lot")
        rejected, failed, slow = SHARES[context.direction]
        if lot < rejected:
            raise Rejected("no", "The lot says no.")
        if lot < failed:
            raise Failed("trouble", "The lot says that it fails.")
        if lot < slow:
            await asyncio.sleep(self._draw(context, "slow") * SLOWEST)

    async def dawdle(self, context: CommandContext) -> None:
        """Let an attempt lie for a while before anything is done about it."""
        if not self._calm and self._draw(context, "lie") < DAWDLING:
            await asyncio.sleep(self._draw(context, "long") * SLOWEST)

    def _draw(self, context: CommandContext, what: str) -> float:
        text = f"{self._seed}/{what}/{context.idempotency_key}/{context.attempt}"
        return zlib.crc32(text.encode()) / 0xFFFFFFFF


def participant(play: Play, database: Database, lots: Lots) -> Participant:
    """Make the participant that performs every command of a play."""
    there = "postgresql+asyncpg://simulated/services" if play.barrier else None
    name, version = play.saga.name, play.saga.version
    made = Participant(name if version == 1 else f"{name}-{version}", database=there)
    for step in play.saga.steps.values():
        _declare(made, play, step, _Performing(database, lots))
    return made


class _Performing:
    """What a handler does: it writes the effect down, and meets with its lot."""

    def __init__(self, database: Database, lots: Lots) -> None:
        self._database = database
        self._lots = lots

    async def behind_the_barrier(self, context: CommandContext, tx: Any) -> None:
        await tx.execute(DID, _place(context))
        await self._lots.meet(context)

    async def alone(self, context: CommandContext) -> None:
        await self._lots.dawdle(context)
        refusal = None
        async with self._database.transaction() as tx:
            [(state,)] = await tx.execute(REMEMBER, _place(context))
            acts = context.direction is Direction.ACTION
            if state == "new":
                try:
                    await self._lots.meet(context)
                except Rejected as error:
                    if self._lots.forgetful or not acts:
                        raise  # nothing of it is kept
                    refusal = error
                    await tx.execute(REFUSED, _place(context))
                else:
                    await tx.execute(DID, _place(context))
            elif state in ("undone", "refused") and acts:
                refusal = Rejected(state, f"It was {state} before.")
        if refusal is not None:
            raise refusal


def _declare(made: Participant, play: Play, step: Step, performing: _Performing) -> None:
    """Declare a step's handlers, and its compensation as one where the barrier can know of it."""
    action, undo = step.action.command, step.undo and step.undo.command
    reply = play.replies.get(action)

    if play.barrier:

        @made.command(action)
        async def act(_: Any, tx: AsyncConnection, context: CommandContext) -> Any:
            await performing.behind_the_barrier(context, tx)
            return reply

        if undo:
            made.compensation(undo, of=action)(act)
    else:

        @made.command(action)
        async def act_alone(_: Any, context: CommandContext) -> Any:
            await performing.alone(context)
            return reply

        if undo:
            made.command(undo)(act_alone)


def _place(context: CommandContext) -> dict[str, Any]:
    return {
        "run_id": str(context.run_id),
        "step": context.step,
        "direction": context.direction.value,
        "idempotency_key": context.idempotency_key,
        "attempt": context.attempt,
    }
