"""The outbox in the model."""

from collections.abc import Sequence
from datetime import timedelta

import orjson

from saga_engine.store.outbox import (
    CommandRow,
    StaleCommands,
    command_columns,
    to_stale_commands,
)
from saga_engine.store.runs import UNLIMITED_BYTES
from saga_engine.vocabulary import Command
from simulation.memory_database import MemoryTransaction
from simulation.rows import Row, limit_bytes, rows_of


class OutboxModel(MemoryTransaction):
    """`OutboxStatements` in memory."""

    async def add_commands(self, commands: Sequence[Command]) -> list[int]:
        if not commands:
            return []
        rows = list(rows_of(command_columns(commands)))
        async with self.statement():
            for row in rows:
                row |= {"id": self.next_value("outbox"), "created_at": self.now, "claimed_at": None}
                self.put("outbox", row["id"], row)
            return [row["id"] for row in rows]

    async def delete_commands(self, ids: Sequence[int]) -> None:
        if not ids:
            return
        async with self.statement():
            for number in ids:
                if self.get("outbox", number) and self.is_lockable("outbox", number):
                    self.lock_unlocked("outbox", number)
                    self.delete("outbox", number)

    async def claim_stale_commands(
        self, age: timedelta, limit: int, *, max_bytes: int = UNLIMITED_BYTES
    ) -> StaleCommands:
        async with self.statement():
            old = [
                row
                for number, row in sorted(self.scan("outbox"))
                if (row["claimed_at"] or row["created_at"]) <= self.now - age
                and self.is_lockable("outbox", number)
            ]
            rows = [self._claim(row) for row in limit_bytes(old[:limit], "payload", max_bytes)]
        await self.delete_commands([row.id for row in rows if not row.is_awaited])
        return to_stale_commands(rows)

    def _claim(self, row: Row) -> CommandRow:
        self.lock_unlocked("outbox", row["id"])
        self.put("outbox", row["id"], {**row, "claimed_at": self.now})
        return CommandRow(
            id=row["id"],
            is_awaited=self._is_awaited(row),
            created_at=row["created_at"],
            run_id=row["run_id"],
            saga=row["saga"],
            version=row["version"],
            step=row["step"],
            direction=row["direction"],
            attempt=row["attempt"],
            command=row["command"],
            idempotency_key=row["idempotency_key"],
            payload=row["payload"],
            due_at=row["due_at"],
        )

    def _is_awaited(self, command: Row) -> bool:
        run = self.get("run", command["run_id"])
        if run is None:
            return True
        step = orjson.loads(run["state"]).get("steps", {}).get(command["step"], {})
        progress = step.get(command["direction"], {})
        expected = ("in_flight", command["attempt"])
        return (progress.get("status"), progress.get("attempts")) == expected
