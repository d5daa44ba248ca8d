"""Crash suspects in the model."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, fields
from datetime import timedelta

from saga_engine.store.crash_suspects import SUSPECTS_MAX, CrashSuspect
from saga_engine.store.pending_requests import PendingRequest, ReadLimits
from simulation.memory_database import MemoryTransaction
from simulation.request_model import take, unblock_requests
from simulation.rows import Row

EXPIRE_AFTER = timedelta(days=1)
"""How old an expired suspect is."""

CALL_COLUMNS = ("step", "direction", "function")
"""The columns that say which call of a run did not return."""


class SuspectModel(MemoryTransaction):
    """`SuspectStatements` in memory."""

    async def record_crash(self, suspect: CrashSuspect) -> int:
        """As `crash_suspects.record_crash`, which another process than the worker calls."""
        async with self.statement():
            new = {**asdict(suspect), "crash_count": 1, "last_crash_at": self.now}
            before = await self.lock("crash_suspect", suspect.run_id)
            if before and all(before[name] == new[name] for name in CALL_COLUMNS):
                new["crash_count"] = before["crash_count"] + 1
            kept = {"retry_allowed_at": None, **(before or {})}
            self.put("crash_suspect", suspect.run_id, {**kept, **new})
            return int(new["crash_count"])

    async def read_suspects(self) -> dict[str, CrashSuspect]:
        async with self.statement():
            return _suspects(self._oldest_suspects()[:SUSPECTS_MAX])

    async def read_suspects_with_work(self) -> dict[str, CrashSuspect]:
        async with self.statement():
            requested = {row["run_id"] for _, row in self.scan("pending_request")}
            runs = [(row, self.get("run", row["run_id"])) for row in self._oldest_suspects()]
            with_work = [
                row for row, run in runs if row["run_id"] in requested or self._is_due_run(run)
            ]
            return _suspects(with_work[:SUSPECTS_MAX])

    def _oldest_suspects(self) -> list[Row]:
        rows = (row for _, row in self.scan("crash_suspect"))
        return sorted(rows, key=lambda row: row["last_crash_at"])

    def _is_due_run(self, run: Row | None) -> bool:
        return run is not None and run["wake_at"] is not None and run["wake_at"] <= self.now

    async def lock_suspect(self, run_id: str) -> bool:
        async with self.statement():
            key = f"crash suspect {run_id}"
            if not self.is_lockable("advisory", key):
                return False
            self.lock_unlocked("advisory", key)
            return True

    async def read_suspects_among(self, run_ids: Collection[str]) -> dict[str, CrashSuspect]:
        if not run_ids:
            return {}
        async with self.statement():
            found = [self.get("crash_suspect", run_id) for run_id in sorted(run_ids)]
            return _suspects(row for row in found if row)

    async def clear_suspects(self, run_ids: Collection[str]) -> None:
        if not run_ids:
            return
        async with self.statement():
            for run_id in sorted(run_ids):
                await self._delete_suspect(run_id)

    async def _delete_suspect(self, run_id: str) -> None:
        if await self.lock("crash_suspect", run_id):
            self.delete("crash_suspect", run_id)

    async def allow_retry(self, run_id: str) -> None:
        async with self.statement():
            audit_ids = [
                row["audit_id"]
                for _, row in self.scan("pending_request")
                if row["run_id"] == run_id and row["kind"] == "resolve"
            ]
            actions = [self.get("audit", audit_id) for audit_id in audit_ids]
            retried_at = [row["recorded_at"] for row in actions if row and row["action"] == "retry"]
            suspect = await self.lock("crash_suspect", run_id)
            if suspect is None or not retried_at:
                return
            last_allowed_at = suspect["retry_allowed_at"]
            if last_allowed_at is None or max(retried_at) > last_allowed_at:
                allowed = {"crash_count": 0, "retry_allowed_at": max(retried_at)}
                self.put("crash_suspect", run_id, {**suspect, **allowed})

    async def delete_expired_suspects(self) -> None:
        async with self.statement():
            for run_id, row in list(self.scan("crash_suspect")):
                run = self.get("run", run_id)
                is_unfinished = run is not None and run["finished_at"] is None
                if row["last_crash_at"] < self.now - EXPIRE_AFTER and not is_unfinished:
                    await self._delete_suspect(run_id)

    async def take_oldest_request(
        self, run_id: str, definition_ids: Sequence[int], body_limits: ReadLimits
    ) -> list[PendingRequest]:
        async with self.statement():
            eligible = [
                row
                for number, row in self.scan("pending_request")
                if row["run_id"] == run_id
                and self._is_for_definition(row, definition_ids)
                and self.is_lockable("pending_request", number)
            ]
            oldest = sorted(eligible, key=lambda row: (row["kind"] != "start", row["id"]))
            taken = take(self, oldest[:1], body_limits)
        await unblock_requests(self, taken)
        return taken

    def _is_for_definition(self, request: Row, definition_ids: Sequence[int]) -> bool:
        if request["kind"] != "start":
            run = self.get("run", request["run_id"])
            return run is not None and run["definition_id"] in definition_ids
        return any(
            row["id"] in definition_ids
            and row["name"] == request["saga"]
            and request["version"] in (None, row["version"])
            and request["fingerprint"] in (None, row["fingerprint"])
            for _, row in self.scan("definition")
        )


def _suspects(rows: Iterable[Row]) -> dict[str, CrashSuspect]:
    names = [field.name for field in fields(CrashSuspect)]
    return {row["run_id"]: CrashSuspect(**{name: row[name] for name in names}) for row in rows}
