"""
The operators of a simulation: they cancel runs and resolve incidents while everything fails.

What they ask for is recorded as the command line does it. They say nothing that is untrue: they
have things tried again or close a run, and ask for what must be refused. Each act must be settled
by one verdict, and an accepted resolution must stand in the journal once.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any, cast
from uuid import UUID

import orjson

from saga_engine.decider.triggers import Cancel, Resolve, trigger_data
from saga_engine.errors import StoreRefused, StoreUnavailable
from saga_engine.store import audit, checked_requests
from saga_engine.store.audit import Act
from saga_engine.store.pending_requests import Item
from saga_engine.vocabulary import Direction, Resolution
from simulation.memory_database import Database, Row, Tables

NAME = "the operator"

WISHES = (Resolution.RETRY, Resolution.RETRY, Resolution.RETRY, Resolution.ABANDON)
"""What is asked for an incident, by lot."""

CANCELS, MISTAKEN = 0.3, 0.1
"""How many acts are cancels, and how many name what is not there."""


class Operator:
    """Acts on runs and incidents; `acts` is how often."""

    def __init__(self, engine: Tables, database: Database, dice: Random) -> None:
        self._engine = engine
        self._database = database
        self._dice = dice

    async def work(self, acts: int, *, within: float) -> None:
        """Act that many times *within* that time."""
        for number in range(acts):
            await asyncio.sleep(self._dice.random() * 2 * within / acts)
            wanted = self._wanted(f"act {number}")
            if wanted is not None:
                await self._record(*wanted)

    def _wanted(self, reason: str) -> tuple[str, Cancel | Resolve] | None:
        lot = self._dice.random()
        if lot < CANCELS:
            run_ids = [*self._engine.rows["run"], *self._waiting()]
            return (self._dice.choice(run_ids), Cancel(NAME, reason)) if run_ids else None
        if lot < CANCELS + MISTAKEN:
            unknown = str(UUID(int=self._dice.getrandbits(128), version=4))
            return unknown, Resolve(1, Resolution.RETRY, NAME, reason)
        rows = self._engine.rows["incident"].values()
        found = [row for row in rows if row["resolved_at"] is None]
        return self._resolution(self._dice.choice(found), reason) if found else None

    def _resolution(self, incident: Row, reason: str) -> tuple[str, Resolve]:
        wish = self._dice.choice(WISHES)
        if incident["direction"] == Direction.COMPENSATION and self._dice.random() < MISTAKEN:
            wish = Resolution.REJECT  # which is refused
        return incident["run_id"], Resolve(incident["number"], wish, NAME, reason)

    def _waiting(self) -> list[str]:
        rows = self._engine.rows["inbox"].values()
        return [row["run_id"] for row in rows if row["kind"] == "start" and row["role"] is None]

    async def _record(self, run_id: str, trigger: Cancel | Resolve) -> None:
        kind, body = trigger_data(trigger)
        number = str(UUID(int=self._dice.getrandbits(128), version=4))
        action = trigger.resolution.value if isinstance(trigger, Resolve) else kind
        act = Act(number, trigger.by, action, trigger.reason, run_id)
        try:
            async with self._database.transaction() as tx:
                await audit.record(cast("Any", tx), [act])
                item = Item(kind, run_id, body, audit_id=number)
                await checked_requests.record(cast("Any", tx), [item])
        except (StoreUnavailable, StoreRefused):
            pass  # it acts again


def unsettled(engine: Tables) -> Iterator[str]:
    """Say which acts were not settled as their verdicts say, in sentences as of `promises`."""
    events = engine.rows["event"].values()
    closed = [event["data"] for event in events if event["type"] == "incident_resolved"]
    reasons = Counter(orjson.loads(data)["reason"] for data in closed)
    for act in engine.rows["audit"].values():
        named = f"act {act['action']} of run {act['run_id']}"
        if act["verdicts"] != 1:
            yield f"P1: {named} has {act['verdicts']} verdicts"
        elif act["action"] not in ("cancel", Resolution.ABANDON.value):
            wanted = int(act["outcome"] == "accepted")
            if reasons[act["reason"]] != wanted:
                yield f"P5: {named} was {act['outcome']} and is {reasons[act['reason']]} times in"
