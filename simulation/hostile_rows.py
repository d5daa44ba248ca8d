"""
Pending requests that a hostile role writes.

Their columns contain what the table allows, their bodies anything. No hostile row may delay another
one: each is dead-lettered or refused, and its business key is released.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from random import Random
from uuid import UUID

from saga_engine.errors import StoreUnavailable
from simulation.memory_database import MemoryDatabase, MemoryTransaction
from simulation.memory_store import MemoryStore
from simulation.request_model import add_pending_request
from simulation.rows import Row

ROLE = "hostile"

ROW_KINDS = (
    "start",
    "start",
    "cancel",
    "resolve",
    "reply",
    "malformed_reply",
    "unroutable",
    "wake_up",
)
DEAD_LETTERED_KINDS = ("start", "cancel", "resolve")
"""Kinds whose rows are dead-lettered for such a body; other kinds may be ignored."""

DEEP_NESTING = 1100
LONG_BODY_BYTES = 600_000

BODIES = (
    *("", "{", "[]", "null", "0", '"', "\x7f", "{}{}", "NaN", "[" * DEEP_NESTING, '{"n":1e999}'),
    "[" * DEEP_NESTING + "]" * DEEP_NESTING,
    '{"operator":"me","reason":' + "[" * DEEP_NESTING + "]" * DEEP_NESTING + "}",
    *('{"input":1,"run_id":"x"}', '{"input":1,"more":2}', '{"reason":"why"}', '{"operator":1}'),
    *('{"operator":"me","reason":7}', '{"operator":null,"reason":{}}'),
    '{"operator":"\\ud800","reason":"why"}',
    *(
        '{"incident_number":true,"resolution":"retry"}',
        '{"incident_number":1e400}',
        '{"incident_number":1}',
    ),
    "x" * LONG_BODY_BYTES,
)


class HostileWriter:
    """Writes hostile rows; `written` has the kind of each new run id that was committed."""

    def __init__(
        self,
        engine_db: MemoryDatabase,
        store: MemoryStore,
        rng: Random,
        sagas: Sequence[str],
        make_run_id: Callable[[int], UUID],
    ) -> None:
        self._engine_db = engine_db
        self._store = store
        self._rng = rng
        self._sagas = sagas
        self._make_run_id = make_run_id
        self.written: dict[str, str] = {}

    async def write(self, rows: int, *, within: float) -> None:
        """Write rows at random times, some of them in one transaction."""
        for number in range(rows):
            await asyncio.sleep(self._rng.random() * 2 * within / rows)
            batch = [self._row(number) for _ in range(self._rng.choice([1, 1, 3]))]
            try:
                async with self._store.transaction() as tx:
                    for row in batch:
                        await _insert_row(tx, row)
            except StoreUnavailable:
                continue
            self.written |= {row["run_id"]: row["kind"] for row in batch if row["own"]}

    def _row(self, number: int) -> Row:
        kind, sample = self._rng.choice(ROW_KINDS), self._rng.random()
        run_id, existing_run_ids = str(self._make_run_id(number)), list(self._engine_db.rows["run"])
        is_new_run = kind == "start" or sample < 0.5 or not existing_run_ids
        is_start = kind == "start"
        return {
            "own": is_new_run,
            "kind": kind,
            "run_id": run_id if is_new_run else self._rng.choice(existing_run_ids),
            "saga": self._rng.choice(self._sagas) if is_start or sample < 0.2 else None,
            "key": f"hostile {run_id}" if self._rng.random() < 0.5 else None,
            "version": 1 if sample < 0.3 else None,
            "definition_id": self._choose_definition() if sample < 0.1 else None,
            "correlation_id": "nobody" if sample < 0.1 else None,
            "body": self._rng.choice(BODIES),
        }

    def _choose_definition(self) -> int | None:
        """A definition that a worker has; a row for another one would stay pending."""
        rows = self._engine_db.rows["definition"].values()
        ids = [row["id"] for row in rows if row["version"] == 1]
        return self._rng.choice(ids) if ids else None

    def violations(self) -> Iterator[str]:
        """Violations of the promises by these rows."""
        dead_lettered_ids = {row["run_id"] for row in self._engine_db.rows["dead_letter"].values()}
        keys = {row["run_id"] for row in self._engine_db.rows["business_key"].values()}
        for run_id, kind in self.written.items():
            if run_id in self._engine_db.rows["run"]:
                yield f"P5: run {run_id} was started from a malformed {kind}"
            if kind in DEAD_LETTERED_KINDS and run_id not in dead_lettered_ids:
                yield f"P7: a malformed {kind} of {run_id} was not dead-lettered"
            if run_id in keys:
                yield f"P1: the key of {run_id}, which never started, was not released"


async def _insert_row(tx: MemoryTransaction, row: Row) -> None:
    """Insert a row; a start reserves its key, as `request_start` does."""
    async with tx.statement():
        if row["kind"] == "start" and row["key"] is not None:
            key_columns = {"saga": row["saga"], "key": row["key"]}
            await tx.insert(
                "business_key",
                (row["saga"], row["key"]),
                {**key_columns, "run_id": row["run_id"], "input_digest": bytes(32)},
            )
        add_pending_request(tx, {**row, "role": ROLE})
