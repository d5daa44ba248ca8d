"""
Bugs of the rules by which the store stays consistent, planted as those of `planted_bugs`.

A statement of PostgreSQL is planted into its model.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from saga_engine.decider.triggers import WakeUp
from saga_engine.store.byte_limits import UNLIMITED_BYTES
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.store.pending_requests import DEFAULT_READ_LIMITS, PendingRequest, ReadLimits
from saga_engine.store.runs import FIRST_REVISION
from saga_engine.worker.batch_transaction import CAREFUL, BatchTransaction
from saga_engine.worker.due_run_duties import DueRunDuties
from saga_engine.worker.work_item import WorkBatch, WorkItem
from simulation.append_model import AppendModel
from simulation.memory_store import MemoryStoreTransaction
from simulation.partition_model import month_of_run
from simulation.request_model import to_pending_request
from simulation.rows import jsonb
from tests.simulation.bug_patcher import BugPatcher
from tests.simulation.planted_bugs import planted_bug
from tests.simulation.planted_event_bugs import ALL_BUGS as OTHER_BUGS


@planted_bug("P2", "P3", "P4", "P5")
def leave_the_tail_of_a_lost_run(plant: BugPatcher) -> None:
    """A run that loses the fence leaves its commands and the change of its row."""
    change_runs, queue_commands = AppendModel._change_runs, AppendModel._queue_commands

    async def change_all(
        self: AppendModel, arguments: Mapping[str, Any], appended: set[str]
    ) -> None:
        await change_runs(self, arguments, appended.union(arguments["c_run_id"]))

    def queue_all(self: AppendModel, arguments: Mapping[str, Any], appended: set[str]) -> list[int]:
        queue_commands(self, arguments, set(arguments["c_run_id"]) - appended)
        return queue_commands(self, arguments, appended)

    plant.replace(AppendModel, "_change_runs", change_all)
    plant.replace(AppendModel, "_queue_commands", queue_all)


@planted_bug("P7")
def claim_timers_in_the_transaction_of_the_batch(plant: BugPatcher) -> None:
    """Due runs are claimed in the transaction of their batch, so that row and fence deadlock."""

    async def process(self: DueRunDuties) -> bool:
        if self._outbox_publisher.blocked:
            return False

        async def claim_and_process(tx: StoreTransaction, batch: BatchTransaction) -> int:
            due = await tx.claim_due_runs(
                self._registry.definition_ids,
                self._limit.size,
                lease=self._lease,
                excluding=self._registry.suspect_run_ids,
            )
            timers = [WorkItem(run_id=run_id, trigger=WakeUp()) for run_id in due.run_ids]
            await batch.process(WorkBatch(timers), CAREFUL)
            return len(timers)

        return await self._limit.adapt(self._transactions.run(claim_and_process)) > 0

    plant.replace(DueRunDuties, "process", process)


@planted_bug("P1", "P5")
def take_a_request_twice(plant: BugPatcher) -> None:
    """A pending request is read without a lock, so that two workers apply it."""

    class TakeUnlocked(MemoryStoreTransaction):
        async def take_requests(
            self,
            *,
            definition_ids: Sequence[int],
            limit: int,
            body_limits: ReadLimits = DEFAULT_READ_LIMITS,
            max_bytes: int = UNLIMITED_BYTES,
        ) -> list[PendingRequest]:
            del max_bytes
            async with self.statement():
                rows = [
                    row
                    for _, row in sorted(self.scan("pending_request"))
                    if row["kind"] != "start"
                    and self._is_due(row)
                    and not row["awaits_start"]
                    and row["definition_id"] in (None, *definition_ids)
                ][:limit]
                for row in rows:
                    self.delete("pending_request", row["id"])
                return [to_pending_request(row, body_limits) for row in rows]

    plant.replace_store(TakeUnlocked)


@planted_bug("P1")
def start_without_the_key(plant: BugPatcher) -> None:
    """A run is started with a business key that is not reserved."""

    async def reserve_nothing(self: AppendModel, arguments: Mapping[str, Any]) -> set[str]:
        return {each for each in arguments["k_run_id"] if self._is_new_run(each)}

    plant.replace(AppendModel, "_insert_new_keys", reserve_nothing)


@planted_bug("P2", "P3", "P4", "P5")
def start_again_after_a_crash(plant: BugPatcher) -> None:
    """A start that was committed and not acknowledged starts its run again."""
    append_rows = AppendModel._append_rows

    async def append_again(
        self: AppendModel, arguments: Mapping[str, Any], new_keys: set[str]
    ) -> set[str]:
        appended = await append_rows(self, arguments, new_keys)
        for run_id, revision, events in zip(
            arguments["j_run_id"], arguments["j_revision"], arguments["j_events"], strict=True
        ):
            before = self.get("journal", (run_id, FIRST_REVISION))
            if revision == FIRST_REVISION and before is not None and run_id not in appended:
                await self.lock("journal", (run_id, FIRST_REVISION))
                row = {**before, "events": jsonb(events)}
                self.put("journal", (run_id, FIRST_REVISION), row)
                appended.add(run_id)
        return appended

    async def start_again(
        self: AppendModel, arguments: Mapping[str, Any], appended: set[str]
    ) -> None:
        known = {each for each in appended if self.get("run", each) is not None}
        await start_runs(self, arguments, appended - known)

    start_runs = AppendModel._start_runs
    plant.replace(AppendModel, "_append_rows", append_again)
    plant.replace(AppendModel, "_start_runs", start_again)


@planted_bug("P5")
def append_to_a_dropped_month(plant: BugPatcher) -> None:
    """A month is dropped too early, and what is decided on its runs is appended without a check."""

    class DropAtOnce(MemoryStoreTransaction):
        async def expired_months(self, cutoff: datetime) -> list[str]:
            del cutoff
            async with self.statement():
                return sorted({month_of_run(run_id) for run_id, _ in self.scan("run")})

        def has_needed_rows(self, month: str, cutoff: datetime) -> bool:
            del month, cutoff
            return False

    append_rows = AppendModel._append_rows

    async def append_any(
        self: AppendModel, arguments: Mapping[str, Any], new_keys: set[str]
    ) -> set[str]:
        appended = await append_rows(self, arguments, new_keys)
        for run_id, revision, events in zip(
            arguments["j_run_id"], arguments["j_revision"], arguments["j_events"], strict=True
        ):
            if revision > FIRST_REVISION and self.get("run", run_id) is None:
                row = {"run_id": run_id, "revision": revision, "events": jsonb(events)}
                row |= {"recorded_at": self.now, "position": self.draw_position()}
                if await self.insert("journal", (run_id, revision), row):
                    appended.add(run_id)
        return appended

    plant.replace_store(DropAtOnce)
    plant.replace(AppendModel, "_append_rows", append_any)


ALL_BUGS = OTHER_BUGS
"""Those of `planted_event_bugs` and these."""
