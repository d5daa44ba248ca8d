"""Runs, their statuses and their timers in the model."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import orjson

from saga_engine.protocol.run_result import RunResult
from saga_engine.store.byte_limits import UNLIMITED_BYTES
from saga_engine.store.due_runs import DueRuns
from saga_engine.store.run_statuses import StatusRow, to_run_statuses
from saga_engine.store.runs import (
    FIRST_REVISION,
    RunRow,
    StoredRun,
    to_stored_runs,
)
from simulation.definition_model import definition_of
from simulation.memory_database import MemoryTransaction
from simulation.rows import Row


class RunModel(MemoryTransaction):
    """`RunStatements` in memory, without business keys."""

    async def database_now(self) -> datetime:
        async with self.statement():
            return self.now

    async def locked_runs(self, run_ids: Collection[str]) -> set[str]:
        async with self.statement():
            return {
                each
                for each in run_ids
                if self.get("run", each) and not self.is_lockable("run", each)
            }

    async def read_runs(
        self, run_ids: Collection[str], *, max_bytes: int = UNLIMITED_BYTES
    ) -> dict[str, StoredRun]:
        if not run_ids:
            return {}
        async with self.statement():
            found = [self.get("run", run_id) for run_id in sorted(run_ids)]
            return to_stored_runs(self._limit_bytes([row for row in found if row], max_bytes))

    async def read_statuses(self, run_ids: Collection[str]) -> dict[str, RunResult]:
        if not run_ids:
            return {}
        async with self.statement():
            found = [self.get("run", run_id) for run_id in sorted(run_ids)]
            return to_run_statuses(self._status_row(row) for row in found if row)

    async def claim_due_runs(
        self,
        definition_ids: Sequence[int],
        limit: int,
        *,
        lease: timedelta,
        excluding: Collection[str] = (),
    ) -> DueRuns:
        async with self.statement():
            due = self._due_runs(definition_ids, excluding)
            chosen = [row for row in due if self.is_lockable("run", row["run_id"])][:limit]
            for row in chosen:
                self.lock_unlocked("run", row["run_id"])
                self.put("run", row["run_id"], {**row, "wake_at": self.now + lease})
            return DueRuns([row["run_id"] for row in chosen], self.now if chosen else None)

    async def due_run_ids(self, definition_ids: Sequence[int], limit: int) -> list[str]:
        async with self.statement():
            return [row["run_id"] for row in self._due_runs(definition_ids)[:limit]]

    async def due_within(
        self, horizons: Mapping[int, timedelta], count_limit: int
    ) -> dict[str, int]:
        async with self.statement():
            sagas = Counter(
                definition_of(self, row["definition_id"])[0]
                for _, row in self.scan("run")
                if row["wake_at"] is not None
                and row["definition_id"] in horizons
                and row["wake_at"] <= self.now + horizons[row["definition_id"]]
            )
            return {saga: min(number, count_limit) for saga, number in sagas.items()}

    async def defer_wake(self, run_id: str, delay: timedelta) -> None:
        async with self.statement():
            row = await self.lock("run", run_id)
            if row is not None and row["wake_at"] is not None:
                self.put("run", run_id, {**row, "wake_at": self.now + delay})

    def _due_runs(
        self, definition_ids: Sequence[int], excluding: Collection[str] = ()
    ) -> list[Row]:
        due = [
            row
            for _, row in self.scan("run")
            if row["wake_at"] is not None
            and row["wake_at"] <= self.now
            and row["definition_id"] in definition_ids
            and row["run_id"] not in excluding
        ]
        return sorted(due, key=lambda row: row["wake_at"])

    def _limit_bytes(self, rows: Iterable[Row], max_bytes: int) -> Iterator[RunRow]:
        """The runs; after `max_bytes` bytes without their snapshot and journal."""
        before = 0
        for row in rows:
            whole = run_row(self, row)
            assert whole.snapshot is not None
            assert whole.journal is not None
            yield whole if before < max_bytes else whole._replace(snapshot=None, journal=None)
            before += len(whole.snapshot.encode()) + len(whole.journal.encode())

    def _status_row(self, row: Row) -> StatusRow:
        saga, version, _ = definition_of(self, row["definition_id"])
        open_incidents = [
            {"since": each["opened_at"]}
            | {field: each[field] for field in ("number", "step", "direction", "cause")}
            for (run_id, _), each in self.scan("incident")
            if run_id == row["run_id"] and each["resolved_at"] is None
        ]
        return StatusRow(
            run_id=row["run_id"],
            status=row["status"],
            saga=saga,
            version=version,
            key=row["key"],
            result=row["result"] or "null",
            cause=row["cause"] or "null",
            open_incidents=orjson.dumps(open_incidents).decode(),
        )


def readable_runs(tx: MemoryTransaction, run_ids: Iterable[str]) -> list[StoredRun]:
    """Read the runs that exist; one whose journal cannot be replayed is left out."""
    found: list[StoredRun] = []
    for row in filter(None, (tx.get("run", run_id) for run_id in sorted(run_ids))):
        with suppress(AssertionError, LookupError, ValueError):
            found += to_stored_runs([run_row(tx, row)]).values()
    return found


def run_row(tx: MemoryTransaction, row: Row) -> RunRow:
    """A run as its statement reads it: with its definition, and its journal after the snapshot."""
    saga, version, fingerprint = definition_of(tx, row["definition_id"])
    run_id, snapshot_revision = row["run_id"], row["snapshot_revision"]
    first, rows = max(snapshot_revision, FIRST_REVISION), list[Row]()
    while (journal_row := tx.get("journal", (run_id, first + len(rows)))) is not None:
        rows.append(journal_row)
    journal = [each["events"] for each in rows if each["revision"] > snapshot_revision]
    return RunRow(
        definition_id=row["definition_id"],
        wake_at=row["wake_at"],
        snapshot=row["snapshot"] or "null",
        snapshot_revision=row["snapshot_revision"],
        journal=f"[{','.join(journal)}]",
        revision=rows[-1]["revision"] if rows else snapshot_revision,
        row_count=len(rows),
        run_id=run_id,
        saga=saga,
        version=version,
        fingerprint=fingerprint,
        key=row["key"],
        started_at=row["started_at"],
        deadline=row["deadline"],
    )
