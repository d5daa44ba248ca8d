"""Incidents, dead letters and outcomes in the model."""

from collections import Counter
from collections.abc import Sequence

from saga_engine.decider.events import Event
from saga_engine.store.audit import ActionOutcome, outcome_columns
from saga_engine.store.dead_letters import DeadLetter, dropped_columns, letter_columns
from saga_engine.store.incidents import opened_columns, resolved_columns
from simulation.memory_database import MemoryTransaction
from simulation.rows import Row, rows_of


class RecordModel(MemoryTransaction):
    """`RecordStatements` in memory, without the counts."""

    async def record_incidents(self, events: Sequence[tuple[str, Event]]) -> None:
        if opened := opened_columns(events):
            async with self.statement():
                for row in rows_of(opened):
                    key = (row["run_id"], row["number"])
                    await self.insert_or_fail("incident", key, {**row, "resolved_at": None})
        if resolved := resolved_columns(events):
            async with self.statement():
                for row in sorted(rows_of(resolved), key=lambda row: row["number"] is None):
                    await self._resolve_incidents(row)

    async def _resolve_incidents(self, resolution: Row) -> None:
        number = resolution.pop("number")
        for key, incident in list(self.scan("incident")):
            matches = key[0] == resolution["run_id"] and number in (None, key[1])
            if matches and incident["resolved_at"] is None:
                await self.lock("incident", key)
                self.put("incident", key, {**incident, **resolution, "resolved_at": self.now})

    async def record_dead_letters(
        self, letters: Sequence[DeadLetter], max_body_bytes: int, quota: int
    ) -> None:
        if not letters:
            return
        rows = list(rows_of(letter_columns(letters, max_body_bytes)))
        stored_positions = set()
        async with self.statement():
            letters_by_group = Counter(
                _quota_group(row) for _, row in self.scan("dead_letter") if row["state"] == "open"
            )
            for position, row in enumerate(rows, 1):
                letters_by_group[_quota_group(row)] += 1
                if row["exempt_from_quota"] or letters_by_group[_quota_group(row)] <= quota:
                    number = self.next_value("dead_letter")
                    self.put("dead_letter", number, {**row, "id": number, "state": "open"})
                    stored_positions.add(position)
        if len(stored_positions) < len(rows):
            async with self.statement():
                for row in rows_of(dropped_columns(letters, stored_positions)):
                    await self._count_dropped(row)

    async def _count_dropped(self, dropped: Row) -> None:
        group = _quota_group(dropped)
        before = await self.lock("dead_letter_dropped", group) or {"dropped_count": 0}
        total = before["dropped_count"] + dropped["dropped_count"]
        self.put("dead_letter_dropped", group, {**dropped, "dropped_count": total})

    async def record_outcomes(self, outcomes: Sequence[ActionOutcome]) -> None:
        if not outcomes:
            return
        rows = list(rows_of(outcome_columns(outcomes)))
        async with self.statement():
            for row in rows:
                await record_outcome(self, row)


async def record_outcome(tx: MemoryTransaction, outcome: Row) -> None:
    """Record the outcome of an action; `outcomes` also counts those that change nothing."""
    row = await tx.lock("audit", outcome["id"])
    if row is not None:
        changes = outcome if row["outcome"] is None else {}
        tx.put("audit", row["id"], {**row, **changes, "outcomes": row["outcomes"] + 1})


def _quota_group(letter: Row) -> tuple[str, str, str]:
    return letter["queue"], letter["reason"], letter["sender"]
