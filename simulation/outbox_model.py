"""The outbox in the model."""

from collections.abc import Sequence
from datetime import timedelta

from saga_engine.store.byte_limits import UNLIMITED_BYTES
from saga_engine.store.outbox import (
    CommandRow,
    OutboxRow,
    StaleCommands,
    obsolete_row_ids,
    to_outbox_rows,
)
from simulation.memory_database import MemoryTransaction
from simulation.rows import Row, limit_bytes
from simulation.run_model import readable_runs


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
            found = to_outbox_rows(
                self._claim(row) for row in limit_bytes(old[:limit], "payload", max_bytes)
            )
        async with self.statement():
            obsolete_ids = self._obsolete_row_ids(found)
        if obsolete_ids:
            async with self.statement():
                for number in obsolete_ids:
                    self.delete("outbox", number)
        return StaleCommands([each for each in found if each.id not in obsolete_ids], len(found))

    def _claim(self, row: Row) -> CommandRow:
        self.lock_unlocked("outbox", row["id"])
        self.put("outbox", row["id"], {**row, "claimed_at": self.now})
        return CommandRow(
            id=row["id"],
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

    def _obsolete_row_ids(self, found: Sequence[OutboxRow]) -> set[int]:
        runs = readable_runs(self, {each.command.run_id for each in found})
        return {row_id for stored in runs for row_id in obsolete_row_ids(stored.run, found)}
