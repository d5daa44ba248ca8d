"""
Bugs of events that an engineer could write, planted as those of `planted_bugs`.

A bug of the event tables and of their statements is planted into their models.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import count

from saga_engine.events.event_store.recorded import EventData, Recorded
from saga_engine.events.feeds.feed_batch import FeedBatch
from saga_engine.events.feeds.feed_runner import FeedRunner
from saga_engine.events.projections.event_batch import BatchResult, EventBatch
from saga_engine.events.projections.locked_version import LockedVersion, VersionLock
from saga_engine.events.projections.projection_batch import BatchApplier
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.participant.context import CommandContext
from saga_engine.protocol.message import PublishOutcome
from simulation import effect_events, workload
from simulation.event_model import NEW_READER, EventModel
from simulation.memory_database import MemoryTransaction
from simulation.projection_model import ProjectionTransactionModel
from simulation.services_model import ServicesTransaction
from tests.kit.programs import sleep
from tests.simulation.bug_patcher import BugPatcher
from tests.simulation.planted_bugs import BUGS, planted_bug

# appends


@planted_bug("E1")
def append_without_an_expected_version(plant: BugPatcher) -> None:
    """An append comes after the last event, also if the command was decided before that."""
    append = EventModel.append

    async def append_any(
        self: EventModel, stream: str, expected: int, events: Sequence[EventData]
    ) -> None:
        async with self.statement():
            await self.lock("stream", stream)
        committed = await self.read_stream(effect_events.LOG, stream)
        await append(self, stream, max(len(committed), expected), events)

    plant.replace(EventModel, "append", append_any)


@planted_bug("E3")
def append_in_a_transaction_of_its_own(plant: BugPatcher) -> None:
    """The events of a step are committed before its effect."""
    append_effect = effect_events.append_effect

    async def append_separately(tx: EventModel, context: CommandContext) -> None:
        separate = ServicesTransaction(tx._database, tx.process, None)
        try:
            await append_effect(separate, context)
            await separate.commit()
        finally:
            separate.release()

    plant.replace(workload, "append_effect", append_separately)


# readers


@planted_bug("E2", "E4", "E5")
def ignore_the_horizon(plant: BugPatcher) -> None:
    """Readers continue after the last position that was drawn."""

    def current_horizon(self: MemoryTransaction) -> int:
        return self._database.last_position

    plant.replace(MemoryTransaction, "current_horizon", current_horizon)


@planted_bug("E6")
def never_take_over_a_lease(plant: BugPatcher) -> None:
    """The lease of a process that was killed has no end."""

    async def acquire_reader(
        self: EventModel, table: str, name: str, owner: str, lease: float
    ) -> int | None:
        async with self.statement():
            row = await self.lock(table, name) or NEW_READER
            if row["owner"] not in (None, owner):
                return None
            self.put(table, name, {**row, **self.lease(owner, lease)})
            position: int = row["position"]
            return position

    plant.replace(EventModel, "acquire_reader", acquire_reader)


# projections


@planted_bug("E2", "E4")
def save_the_checkpoint_before_the_effects(plant: BugPatcher) -> None:
    """A checkpoint is committed before the effects of its batch."""

    async def apply(self: BatchApplier, batch: EventBatch) -> BatchResult:
        planned = self._plan(batch.events)
        async with self._lock.at(batch.after) as locked:
            await locked.save(batch.until)
        async with self._store.transaction() as tx:
            await tx.execute(planned.steps, self._call_limit)
        return BatchResult(batch.until)

    plant.replace(BatchApplier, "_apply", apply)


@planted_bug("E2", "E4")
def save_the_checkpoint_after_the_effects(plant: BugPatcher) -> None:
    """A checkpoint is committed after the effects of its batch."""

    async def apply(self: BatchApplier, batch: EventBatch) -> BatchResult:
        planned = self._plan(batch.events)
        async with self._lock.at(batch.after) as locked:
            await locked.tx.execute(planned.steps, self._call_limit)
        async with self._lock.at(batch.after) as locked:
            await locked.save(batch.until)
        return BatchResult(batch.until)

    plant.replace(BatchApplier, "_apply", apply)


@planted_bug("E2", "E4")
def write_without_the_fence(plant: BugPatcher) -> None:
    """A batch is written at any checkpoint, also when another process has the lease."""

    async def lock(self: ProjectionTransactionModel, position: int, owner: str) -> bool:
        del position, owner
        async with self.tx.statement():
            await self.tx.lock("projection", self._name)
            return True

    plant.replace(ProjectionTransactionModel, "lock", lock)


SLOW_CALL = 7
"""Of so many calls one takes longer than the lease."""


@planted_bug("E2", "E4")
def check_the_lease_before_the_batch(plant: BugPatcher) -> None:
    """The lease and the checkpoint are compared in a transaction before that of the batch."""

    @asynccontextmanager
    async def at(self: VersionLock, position: int) -> AsyncIterator[LockedVersion]:
        async with self.store.transaction() as tx:
            if not await tx.lock(position, self.owner):
                raise NotOwner
        if next(calls) % SLOW_CALL == 0:
            await sleep(2 * self.lease)  # meanwhile another projector takes over
        async with self.store.transaction() as tx:
            yield LockedVersion(tx, self.owner, self.lease)

    calls = count(1)
    plant.replace(VersionLock, "at", at)


# feeds


@planted_bug("E5")
def save_the_position_before_the_confirm(plant: BugPatcher) -> None:
    """A feed saves its position, and then publishes the events before it."""
    publish = FeedRunner._publish

    async def publish_late(self: FeedRunner, batch: FeedBatch, stop: asyncio.Event) -> None:
        passed = FeedBatch((), batch.position, batch._until, self._sink)
        await self._save(passed)
        await publish(self, batch, stop)

    plant.replace(FeedRunner, "_publish", publish_late)


@planted_bug("E5")
def publish_the_events_of_a_stream_together(plant: BugPatcher) -> None:
    """A feed does not wait for the confirm of an event before the next one of its stream."""

    def next_events(self: FeedBatch) -> list[Recorded]:
        return [event for queue in self._streams.values() for event in queue]

    def remove(self: FeedBatch, event: Recorded, outcome: PublishOutcome) -> None:
        self._streams[event.stream].remove(event)
        self._done[event.position] = outcome

    plant.replace(FeedBatch, "next_events", next_events)
    plant.replace(FeedBatch, "_remove", remove)


@planted_bug("E5")
def pass_over_refused_events(plant: BugPatcher) -> None:
    """A feed treats an event that the broker has not confirmed as published."""

    def record(self: FeedBatch, results: Iterable[tuple[Recorded, PublishOutcome]]) -> None:
        for event, outcome in results:
            self._remove(event, outcome)
        self._advance()

    plant.replace(FeedBatch, "record", record)


ALL_BUGS = BUGS
"""Those of `planted_bugs` and these."""
