"""
Monthly partitions in the model.

Time is shortened. A month is one second of run ids; it ends when ids of that second are too old to
be accepted (`MAX_RUN_ID_AGE`). Runs are retained for `RETENTION`; the settings are ignored. So
partitions are dropped within a simulation whose run ids are a week old.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from saga_engine.store.journal_readers import JournalReader, ReaderKind
from simulation.definition_model import definition_of
from simulation.memory_database import MemoryTransaction
from simulation.record_model import record_outcome
from simulation.rows import UNFINISHED, Row

MAX_RUN_ID_AGE = timedelta(days=7)
"""The default of `max_run_id_age_days`."""

RETENTION = timedelta(seconds=30)
"""How long a finished run is retained."""

DETACHED, DROPPED = "detached", "dropped"
"""The tables of detached partitions, and of dropped ones, which only the checks read."""

PARTITIONED_TABLES = ("run", "journal")

REFUSED_RUN_DROPPED = "The run was finished, and was dropped with its month."


class PartitionModel(MemoryTransaction):
    """`PartitionTables` in memory."""

    async def count_missing_partitions(self, months_ahead: int) -> int:
        del months_ahead
        async with self.statement():
            return 0

    async def add_partitions(self, months_ahead: int) -> int:
        del months_ahead
        async with self.statement():
            return 0

    async def expiry_cutoff(self, retention_days: int) -> datetime:
        del retention_days
        async with self.statement():
            return self.now - RETENTION

    async def expired_months(self, cutoff: datetime) -> list[str]:
        async with self.statement():
            months = {month_of_run(run_id) for run_id, _ in self.scan("run")}
            return sorted(month for month in months if _month_end(month) < cutoff)

    async def month_needed(self, month: str, cutoff: datetime) -> bool:
        async with self.statement():
            return self.has_needed_rows(month, cutoff)

    def has_needed_rows(self, month: str, cutoff: datetime) -> bool:
        """Whether a month has an unfinished run or a pending start, as `month_needed`."""
        runs = (row for run_id, row in self.scan("run") if month_of_run(run_id) == month)
        if any(row["status"] in UNFINISHED or _ended_after(row, cutoff) for row in runs):
            return True
        return any(month_of_run(row["run_id"]) == month for row in self._pending_starts())

    async def summarize_finished_index(self, month: str, first_page: int) -> int | None:
        del month, first_page
        async with self.statement():
            return None

    async def release_keys(
        self, month: str, after_run_id: str, cutoff: datetime, limit: int
    ) -> str | None:
        async with self.statement():
            later = sorted(
                (run_id, row)
                for run_id, row in self.scan("run")
                if month_of_run(run_id) == month and run_id > after_run_id
            )
            page = later[:limit]
            for run_id, row in page:
                pair = (definition_of(self, row["definition_id"])[0], row["key"])
                held = await self.lock("business_key", pair)
                is_finished = row["finished_at"] is not None and not _ended_after(row, cutoff)
                if held is not None and held["run_id"] == run_id and is_finished:
                    self.delete("business_key", pair)
            return page[-1][0] if page else None

    async def set_lock_timeout(self, seconds: float) -> None:
        del seconds  # That of the model stays.
        async with self.statement():
            pass

    async def detach_month(self, month: str, cutoff: datetime) -> int:
        async with self.statement():
            await self.lock_table("run")
            self.refresh_snapshot()
            if self.has_needed_rows(month, cutoff):
                return 0
            self._move(month, "", DETACHED)
            return 1

    async def readers_behind(self, month: str) -> Sequence[JournalReader]:
        del month  # The model has no projections and feeds in the database of the runs.
        async with self.statement():
            return ()

    async def pass_over_readers(self, month: str) -> Sequence[JournalReader]:
        return await self.readers_behind(month)

    async def incomplete_readers(self) -> Sequence[tuple[ReaderKind, str]]:
        async with self.statement():
            return ()

    async def detached_months(self) -> list[str]:
        async with self.statement():
            return sorted({month_of_run(run_id) for run_id, _ in self.scan("detached run")})

    async def delete_incidents(self, month: str, limit: int) -> int:
        async with self.statement():
            keys = [key for key, _ in self.scan("incident") if month_of_run(key[0]) == month]
            old = [key for key in keys if self.get("run", key[0]) is None][:limit]
            for key in old:
                await self.lock("incident", key)
                self.delete("incident", key)
            return len(old)

    async def delete_requests(self, month: str, limit: int) -> int:
        async with self.statement():
            old = [
                row
                for number, row in self.scan("pending_request")
                if month_of_run(row["run_id"]) == month
                and self.is_orphaned(row)
                and self.is_lockable("pending_request", number)
            ][:limit]
            for row in old:
                self.lock_unlocked("pending_request", row["id"])
                self.delete("pending_request", row["id"])
            refused = {"outcome": "refused", "message": REFUSED_RUN_DROPPED}
            for audit_id in [row["audit_id"] for row in old if row["audit_id"] is not None]:
                await record_outcome(self, {"id": audit_id, **refused})
            return len(old)

    def is_orphaned(self, request: Row) -> bool:
        """Whether the run of a request was dropped and has no pending start."""
        run_id = request["run_id"]
        starts = {row["run_id"] for row in self._pending_starts()}
        return run_id not in starts and self.get("run", run_id) is None

    async def drop_month(self, month: str) -> None:
        async with self.statement():
            self._move(month, DETACHED, DROPPED)

    def _pending_starts(self) -> Iterator[Row]:
        return (row for _, row in self.scan("pending_request") if row["kind"] == "start")

    def _move(self, month: str, source: str, target: str) -> None:
        for table in PARTITIONED_TABLES:
            source_table = f"{source} {table}".strip()
            for key, row in list(self.scan(source_table)):
                if month_of_run(row["run_id"]) == month:
                    self.delete(source_table, key)
                    self.put(f"{target} {table}", key, row)


def month_of_run(run_id: str) -> str:
    """The month of a run id."""
    return str((UUID(run_id).int >> 80) // 1000)


def _month_end(month: str) -> datetime:
    return datetime.fromtimestamp(int(month) + 1, UTC) + MAX_RUN_ID_AGE


def _ended_after(row: Row, cutoff: datetime) -> bool:
    return row["finished_at"] is not None and row["finished_at"] > cutoff
