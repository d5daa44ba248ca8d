"""The one statement that appends what a batch has decided, in the model; see `batch_append`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from saga_engine.store.batch_append import (
    AppendResult,
    BatchAppend,
    append_arguments,
    append_result,
    lost_runs,
)
from saga_engine.store.batch_outcome import outcome_of
from saga_engine.store.journal import NewJournalRow
from saga_engine.store.runs import FIRST_REVISION
from simulation.key_model import KeyModel
from simulation.request_model import start_is_pending
from simulation.rows import Row, jsonb, rows_of


class AppendModel(KeyModel):
    """
    `append` in memory: its parts in the order in which they wait for one another.

    What a part reads, it reads as it was when the statement began, unless it inserts or locks it.
    """

    async def append_runs(self, batch: BatchAppend) -> AppendResult:
        arguments = append_arguments(batch)
        is_alone = not self.has_started
        async with self.statement():
            new_keys = await self._insert_new_keys(arguments)
            appended = await self._append_rows(arguments, new_keys)
            await self._start_runs(arguments, appended)
            await self._change_runs(arguments, appended)
            outbox_ids = self._queue_commands(arguments, appended)
            self._delete_confirmed(batch)
            lost = lost_runs(batch, appended, self._outdated(batch))
            result = append_result(batch, arguments, lost, outbox_ids, self.now)
            self.decided_runs |= appended.union(batch.unchanged).difference(lost)
        if is_alone:
            await self.commit()
        return result

    async def read_outcome(
        self, batch: BatchAppend, *, outbox_after: int | None
    ) -> AppendResult | None:
        async with self.statement():
            appended = {
                each.journal_row.run_id
                for each in batch.runs
                if self._is_appended_by(batch, each.journal_row)
            }
            queued = {
                (row["idempotency_key"], row["attempt"]): number
                for number, row in self.scan("outbox")
                if outbox_after is not None and number > outbox_after
            }
            return outcome_of(batch, appended, queued, self.now) if appended else None

    async def _insert_new_keys(self, arguments: Mapping[str, Any]) -> set[str]:
        inserted = set()
        for row in sorted(_rows(arguments, "k"), key=lambda row: (row["saga"], row["key"])):
            pair, run_id = (row["saga"], row["key"]), row["run_id"]
            if self._is_new_run(run_id) and self.is_lockable("advisory", pair):
                self.lock_unlocked("advisory", pair)
                if await self.insert_key(pair, run_id, row["input_digest"]):
                    inserted.add(run_id)
        return inserted

    def _is_appended_by(self, batch: BatchAppend, journal_row: NewJournalRow) -> bool:
        row = self.get("journal", (journal_row.run_id, journal_row.revision))
        return row is not None and row["batch_id"] == batch.batch_id

    def _is_new_run(self, run_id: str) -> bool:
        return self.get("run", run_id) is None and not start_is_pending(self, run_id)

    async def _append_rows(self, arguments: Mapping[str, Any], new_keys: set[str]) -> set[str]:
        if not arguments["j_run_id"]:
            return set()
        first, *_ = [self.draw_position() for _ in range(arguments["j_position_count"])]
        columns = {**arguments, "j_position_count": ()}
        appended = set()
        for row in _rows(columns, "j"):
            run_id, revision = row["run_id"], row["revision"]
            if revision > FIRST_REVISION:
                is_next = self.get("journal", (run_id, revision - 1)) is not None
            elif run_id in arguments["k_run_id"]:
                is_next = run_id in new_keys
            else:
                is_next = self._is_new_run(run_id)
            row |= {"events": jsonb(row["events"]), "position": first + row.pop("place")}
            row["batch_id"] = arguments["batch_id"]
            if is_next and await self.insert("journal", (run_id, revision), row):
                appended.add(run_id)
        return appended

    async def _start_runs(self, arguments: Mapping[str, Any], appended: set[str]) -> None:
        for row in _rows(arguments, "s"):
            if row["run_id"] in appended:
                row |= {"snapshot": None, "snapshot_revision": 0, **_jsonb_columns(row)}
                await self.insert_or_fail("run", row["run_id"], row)

    async def _change_runs(self, arguments: Mapping[str, Any], appended: set[str]) -> None:
        for new in _rows(arguments, "c"):
            if new["run_id"] in appended and self._changed_row(new):
                await self.lock("run", new["run_id"])
                if changed := self._changed_row(new):
                    self.put("run", new["run_id"], changed)

    def _changed_row(self, new: Row) -> Row | None:
        """The row after the change; None if it changes nothing."""
        old = self.get("run", new["run_id"])
        if old is None:
            return None
        columns = {**new, **_jsonb_columns(new)}
        columns["wake_at"] = _next_wake_at(old["wake_at"], new, self.now)
        if new["snapshot"] is None:
            columns |= {name: old[name] for name in ("snapshot", "snapshot_revision")}
        else:
            columns["snapshot"] = jsonb(new["snapshot"])
        del columns["wakes"]
        is_changed = new["snapshot"] is not None or any(
            old[name] != columns[name] for name in ("status", "finished_at", "cause", "wake_at")
        )
        return {**old, **columns} if is_changed else None

    def _queue_commands(self, arguments: Mapping[str, Any], appended: set[str]) -> list[int]:
        ids = []
        for row in _rows(arguments, "o"):
            if row["run_id"] in appended:
                row |= {"id": self.next_value("outbox"), "created_at": self.now, "claimed_at": None}
                self.put("outbox", row["id"], row)
                ids.append(row["id"])
        return ids

    def _delete_confirmed(self, batch: BatchAppend) -> None:
        for number in batch.confirmed_ids:
            if self.get("outbox", number) and self.is_lockable("outbox", number):
                self.lock_unlocked("outbox", number)
                self.delete("outbox", number)

    def _outdated(self, batch: BatchAppend) -> set[str]:
        return {
            run_id
            for run_id, revision in batch.unchanged.items()
            if self.get("journal", (run_id, revision)) is None
            or self.get("journal", (run_id, revision + 1)) is not None
        }


def _rows(arguments: Mapping[str, Any], prefix: str) -> list[Row]:
    """The rows of one part, of the arguments with its prefix."""
    columns = {
        name.removeprefix(f"{prefix}_"): values
        for name, values in arguments.items()
        if name.startswith(f"{prefix}_") and values != ()
    }
    return list(rows_of(columns))


def _jsonb_columns(row: Row) -> Row:
    return {name: None if row[name] is None else jsonb(row[name]) for name in ("result", "cause")}


def _next_wake_at(old: datetime | None, new: Row, now: datetime) -> datetime | None:
    wake: datetime | None = new["wake_at"]
    if new["finished_at"] is not None:
        return None
    if new["wakes"] or old is None or old <= now or (wake is not None and wake < old):
        return wake
    return old
