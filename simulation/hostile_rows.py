"""
Rows that another role writes into the inbox, and that no client of ours would.

Their columns hold what the table allows, their bodies anything. None of them may hold up an honest
row: each becomes a dead letter or is refused, and gives back the key that it took.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import text

from saga_engine.errors import StoreUnavailable
from simulation.memory_database import Answers, Database, Tables, Transaction
from simulation.run_model import add_to_inbox

HOSTILE = text("a role inserts into the inbox")
ROLE = "hostile"

KINDS = ("start", "start", "cancel", "resolve", "reply", "garbled", "returned", "woken")
TOLD = ("start", "cancel", "resolve")
"""Kinds of which a row with such a body becomes a dead letter; others may mean nothing."""

DEEP = 1100
LONG = 600_000

BODIES = (
    *("", "{", "[]", "null", "0", '"', "\x7f", "{}{}", "NaN", "[" * DEEP, '{"n":1e999}'),
    "[" * DEEP + "]" * DEEP,
    '{"by":"me","reason":' + "[" * DEEP + "]" * DEEP + "}",
    *('{"input":1,"run_id":"x"}', '{"input":1,"more":2}', '{"reason":"why"}', '{"by":1}'),
    *('{"by":"me","reason":7}', '{"by":null,"reason":{}}', '{"by":"\\ud800","reason":"why"}'),
    *('{"incident":true,"resolution":"retry"}', '{"incident":1e400}', '{"incident":1}'),
    "x" * LONG,
)

ANSWERS = Answers()


async def _insert(tx: Transaction, row: Mapping[str, Any]) -> Sequence[Any]:
    """A start takes its key, as `request_start` does for whoever may call it."""
    if row["kind"] == "start" and row["key"] is not None:
        pair = {"saga": row["saga"], "key": row["key"]}
        await tx.insert(
            "run_key",
            (row["saga"], row["key"]),
            {**pair, "run_id": row["run_id"], "input_digest": bytes(32)},
        )
    add_to_inbox(tx, {**row, "role": ROLE})
    return []


ANSWERS[id(HOSTILE)] = _insert


class Hostile:
    """
    Writes rows; `sagas` are those it knows by name, `fresh` makes a run id.

    `written` are the kinds of those that were committed, by the run id of each that is its own.
    """

    def __init__(
        self,
        engine: Tables,
        database: Database,
        dice: Random,
        sagas: Sequence[str],
        fresh: Callable[[int], UUID],
    ) -> None:
        self._engine = engine
        self._database = database
        self._dice = dice
        self._sagas = sagas
        self._fresh = fresh
        self.written: dict[str, str] = {}

    async def write(self, rows: int, *, within: float) -> None:
        """Write that many rows *within* that time, some into one transaction."""
        for number in range(rows):
            await asyncio.sleep(self._dice.random() * 2 * within / rows)
            some = [self._row(number) for _ in range(self._dice.choice([1, 1, 3]))]
            try:
                async with self._database.transaction() as tx:
                    for row in some:
                        await tx.execute(HOSTILE, row)
            except StoreUnavailable:
                continue
            self.written |= {row["run_id"]: row["kind"] for row in some if row["own"]}

    def _row(self, number: int) -> dict[str, Any]:
        kind, lot = self._dice.choice(KINDS), self._dice.random()
        run_id, honest = str(self._fresh(number)), list(self._engine.rows["run"])
        own = kind == "start" or lot < 0.5 or not honest
        starts = kind == "start"
        return {
            "own": own,
            "kind": kind,
            "run_id": run_id if own else self._dice.choice(honest),
            "saga": self._dice.choice(self._sagas) if starts or lot < 0.2 else None,
            "key": f"hostile {run_id}" if self._dice.random() < 0.5 else None,
            "version": 1 if lot < 0.3 else None,
            "definition_id": self._definition() if lot < 0.1 else None,
            "correlation_id": "nobody" if lot < 0.1 else None,
            "body": self._dice.choice(BODIES),
        }

    def _definition(self) -> int | None:
        """Name a definition that a worker has; what names another one waits for that."""
        rows = self._engine.rows["definition"].values()
        ids = [row["id"] for row in rows if row["version"] == 1]
        return self._dice.choice(ids) if ids else None

    def broken(self) -> Iterator[str]:
        """Say which of the rows did not end as they must, in sentences as of `promises`."""
        letters = {row["run_ids"] for row in self._engine.rows["dead_letter"].values()}
        keys = {row["run_id"] for row in self._engine.rows["run_key"].values()}
        for run_id, kind in self.written.items():
            if run_id in self._engine.rows["run"]:
                yield f"P5: run {run_id} began from a {kind} that cannot be read"
            if kind in TOLD and run_id not in letters:
                yield f"P7: a {kind} of {run_id} that cannot be read was not set aside"
            if run_id in keys:
                yield f"P1: the key of {run_id}, which never began, is taken for ever"
