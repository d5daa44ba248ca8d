"""
The operators of a simulation: they cancel runs and resolve incidents during the fault phase.

Their requests are recorded as the command line records them. They retry steps, abandon runs and
make requests that must be refused; they never claim that a step succeeded. Each action must get one
outcome, and an accepted resolution must be in the journal once.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from random import Random
from uuid import UUID

from saga_engine.decider.triggers import Cancel, ResolveIncident
from saga_engine.errors import StoreRefused, StoreUnavailable
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.pending_requests import NewRequest
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.vocabulary import Direction, Resolution
from simulation.memory_database import MemoryDatabase
from simulation.memory_store import MemoryStore
from simulation.rows import Row, stored_events_of

OPERATOR_NAME = "the operator"

RESOLUTIONS = (Resolution.RETRY, Resolution.RETRY, Resolution.RETRY, Resolution.ABANDON)
"""The resolutions of an incident, chosen at random."""

CANCEL_SHARE, INVALID_SHARE = 0.3, 0.1
"""The shares of actions that are cancels and that name an unknown run."""


class Operator:
    """Records actions on runs and incidents."""

    def __init__(self, engine_db: MemoryDatabase, store: MemoryStore, rng: Random) -> None:
        self._engine_db = engine_db
        self._store = store
        self._rng = rng

    async def run(self, actions: int, *, within: float) -> None:
        """Record actions at random times."""
        for number in range(actions):
            await asyncio.sleep(self._rng.random() * 2 * within / actions)
            request = self._choose_request(f"act {number}")
            if request is not None:
                await self._record(*request)

    def _choose_request(self, reason: str) -> tuple[str, Cancel | ResolveIncident] | None:
        sample = self._rng.random()
        if sample < CANCEL_SHARE:
            run_ids = [*self._engine_db.rows["run"], *self._pending_starts()]
            return (self._rng.choice(run_ids), Cancel(OPERATOR_NAME, reason)) if run_ids else None
        if sample < CANCEL_SHARE + INVALID_SHARE:
            unknown = str(UUID(int=self._rng.getrandbits(128), version=4))
            return unknown, ResolveIncident(
                incident_number=1,
                resolution=Resolution.RETRY,
                operator=OPERATOR_NAME,
                reason=reason,
            )
        rows = self._engine_db.rows["incident"].values()
        open_incidents = [row for row in rows if row["resolved_at"] is None]
        return (
            self._resolution(self._rng.choice(open_incidents), reason) if open_incidents else None
        )

    def _resolution(self, incident: Row, reason: str) -> tuple[str, ResolveIncident]:
        resolution = self._rng.choice(RESOLUTIONS)
        if incident["direction"] == Direction.COMPENSATION and self._rng.random() < INVALID_SHARE:
            resolution = Resolution.REJECT  # This is refused.
        return incident["run_id"], ResolveIncident(
            incident_number=incident["number"],
            resolution=resolution,
            operator=OPERATOR_NAME,
            reason=reason,
        )

    def _pending_starts(self) -> list[str]:
        rows = self._engine_db.rows["pending_request"].values()
        return [row["run_id"] for row in rows if row["kind"] == "start" and row["role"] is None]

    async def _record(self, run_id: str, trigger: Cancel | ResolveIncident) -> None:
        kind, body = serialize_trigger(trigger)
        audit_id = str(UUID(int=self._rng.getrandbits(128), version=4))
        action = trigger.resolution.value if isinstance(trigger, ResolveIncident) else kind
        audit_record = OperatorAction(
            id=audit_id,
            operator=trigger.operator,
            action=ActionKind(action),
            reason=trigger.reason,
            run_id=run_id,
        )
        try:
            async with self._store.transaction() as tx:
                await tx.record_actions([audit_record])
                item = NewRequest(kind=kind, run_id=run_id, body=body, audit_id=audit_id)
                await tx.record_operator_requests([item])
        except (StoreUnavailable, StoreRefused):
            pass  # It acts again later.


def audit_violations(engine_db: MemoryDatabase) -> Iterator[str]:
    """Violations of the promises by actions whose outcome does not match the journal."""
    reasons = Counter(
        event.data["reason"]
        for row in engine_db.rows["journal"].values()
        for event in stored_events_of(row)
        if event.type == "incident_resolved"
    )
    for audit_row in engine_db.rows["audit"].values():
        label = f"act {audit_row['action']} of run {audit_row['run_id']}"
        if audit_row["outcomes"] != 1:
            yield f"P1: {label} has {audit_row['outcomes']} outcomes"
        elif audit_row["action"] not in ("cancel", Resolution.ABANDON.value):
            expected = int(audit_row["outcome"] == "accepted")
            if reasons[audit_row["reason"]] != expected:
                yield (
                    f"P5: {label} was {audit_row['outcome']} and is in the"
                    f" journal {reasons[audit_row['reason']]} times"
                )
