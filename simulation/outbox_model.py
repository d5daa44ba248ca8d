"""The outbox in the model."""

from datetime import timedelta

import orjson

from saga_engine.store.outbox import (
    CommandRow,
    StaleCommands,
    to_stale_commands,
)
from saga_engine.store.runs import UNLIMITED_BYTES
from simulation.memory_database import MemoryTransaction
from simulation.rows import Row, limit_bytes


class OutboxModel(MemoryTransaction):
    """`OutboxStatements` in memory."""

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
        obsolete_ids = [row.id for row in rows if not row.is_awaited]
        if obsolete_ids:
            async with self.statement():
                for number in obsolete_ids:
                    self.delete("outbox", number)
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
