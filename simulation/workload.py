"""
A workload: a saga, its input, and participants whose outcomes are sampled.

The participants are the real kit over the model of PostgreSQL. Each handler inserts its effect into
a table in its transaction; the checks compare the journal with these effects.
"""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.participant.context import CommandContext
from saga_engine.participant.participant import Participant
from saga_engine.protocol.rejection import Failed, Rejected
from saga_engine.saga.definition import Saga, Step
from saga_engine.vocabulary import Direction, Json
from simulation.effect_events import append_effect
from simulation.memory_client import MemoryDatabaseClient
from simulation.services_model import ServicesTransaction

MAX_DELAY_S = 50.0
"""The longest delay of a slow participant in seconds: longer than most timeouts."""

OUTCOME_THRESHOLDS = {
    Direction.ACTION: (0.07, 0.15, 0.21),
    Direction.COMPENSATION: (0.01, 0.11, 0.15),
}
"""Upper bounds of a sample in [0, 1) that is rejected, failed or slow; others succeed."""

DELAYED_SHARE = 0.3
"""The share of commands that a service without the barrier delays before it handles them."""


@dataclass(frozen=True, slots=True)
class Workload:
    """
    A saga to simulate.

    `input` is the input of every run, `replies` the results by command (null by default). With
    `barrier` the participants use the kit's barrier, otherwise their own deduplication.
    """

    saga: Saga
    input: Json
    replies: Mapping[str, Json] = field(default_factory=dict)
    barrier: bool = True


class SampledOutcomes:
    """
    The outcome of each attempt; it depends only on the seed and the attempt.

    With `forgets_rejections` a service without the barrier does not record rejections: it may
    perform a late attempt of a rejected step, which the engine then compensates. docs/protocol.md
    requires that a service records them; without that, a retry by an operator could act twice.
    """

    def __init__(self, seed: int, *, forgets_rejections: bool) -> None:
        self.forgets_rejections = forgets_rejections
        self._seed = seed
        self._disabled = False

    def disable(self) -> None:
        """Let every attempt succeed without delay."""
        self._disabled = True

    async def apply(self, context: CommandContext) -> None:
        """Apply the sampled outcome, after the effect and before its commit."""
        if self._disabled:
            return
        sample = self._sample(context, "lot")
        rejected, failed, slow = OUTCOME_THRESHOLDS[context.direction]
        if sample < rejected:
            raise Rejected("no", "Sampled rejection.")
        if sample < failed:
            raise Failed("trouble", "Sampled failure.")
        if sample < slow:
            await asyncio.sleep(self._sample(context, "slow") * MAX_DELAY_S)

    async def delay(self, context: CommandContext) -> None:
        """Delay some attempts before they are handled."""
        if not self._disabled and self._sample(context, "lie") < DELAYED_SHARE:
            await asyncio.sleep(self._sample(context, "long") * MAX_DELAY_S)

    def _sample(self, context: CommandContext, purpose: str) -> float:
        text = f"{self._seed}/{purpose}/{context.idempotency_key}/{context.attempt}"
        return zlib.crc32(text.encode()) / 0xFFFFFFFF


def make_participant(
    workload: Workload,
    database: MemoryDatabaseClient[ServicesTransaction],
    sampled_outcomes: SampledOutcomes,
    *,
    appends_events: bool = False,
) -> Participant:
    """
    Make the participant that handles every command of a workload.

    With `appends_events` each effect behind the barrier appends an event in its transaction.
    """
    database_url = "postgresql+asyncpg://simulated/services" if workload.barrier else None
    name, version = workload.saga.name, workload.saga.version
    definition = Participant(name if version == 1 else f"{name}-{version}", database=database_url)
    behavior = _HandlerBehavior(database, sampled_outcomes, appends_events=appends_events)
    for step in workload.saga.steps.values():
        _declare_handlers(definition, workload, step, behavior)
    return definition


class _HandlerBehavior:
    """What a handler does: insert its effect and apply the sampled outcome."""

    def __init__(
        self,
        database: MemoryDatabaseClient[ServicesTransaction],
        sampled_outcomes: SampledOutcomes,
        *,
        appends_events: bool,
    ) -> None:
        self._database = database
        self._sampled_outcomes = sampled_outcomes
        self._appends_events = appends_events

    async def with_barrier(self, context: CommandContext, tx: object) -> None:
        assert isinstance(tx, ServicesTransaction), "the executor passes on what the model opened"
        await tx.insert_effect(context, has_event=self._appends_events)
        if self._appends_events:
            await append_effect(tx, context)
        await self._sampled_outcomes.apply(context)

    async def without_barrier(self, context: CommandContext) -> None:
        await self._sampled_outcomes.delay(context)
        rejection = None
        async with self._database.transaction() as tx:
            state = await tx.deduplicate(context)
            is_action = context.direction is Direction.ACTION
            if state == "new":
                try:
                    await self._sampled_outcomes.apply(context)
                except Rejected as error:
                    if self._sampled_outcomes.forgets_rejections or not is_action:
                        raise  # It is not recorded.
                    rejection = error
                    await tx.record_rejection(context)
                else:
                    await tx.insert_effect(context)
            elif state in ("compensated", "rejected") and is_action:
                rejection = Rejected(state, f"It was {state} before.")
        if rejection is not None:
            raise rejection


def _declare_handlers(
    definition: Participant, workload: Workload, step: Step, behavior: _HandlerBehavior
) -> None:
    """Declare the handlers of a step; with the barrier the compensation is declared as one."""
    action, compensation = (
        step.action_spec.command,
        step.compensation_spec and step.compensation_spec.command,
    )
    reply = workload.replies.get(action)

    if workload.barrier:

        @definition.command(action)
        async def handle(_: Any, tx: AsyncConnection, context: CommandContext) -> Any:
            await behavior.with_barrier(context, tx)
            return reply

        if compensation:
            definition.compensation(compensation, of=action)(handle)
    else:

        @definition.command(action)
        async def handle_without_barrier(_: Any, context: CommandContext) -> Any:
            await behavior.without_barrier(context)
            return reply

        if compensation:
            definition.command(compensation)(handle_without_barrier)
