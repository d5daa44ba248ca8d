"""Stored runs for tests: a saga of two steps, and its decisions, without a worker."""

import secrets
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from saga_engine.decider.commands import commands_to_send, wake_at
from saga_engine.decider.decide import decide
from saga_engine.decider.decision import Decision
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import ReplyReceived, Start, Trigger
from saga_engine.saga.definition import Saga
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.store.journal import NewDecision, NewJournalRow
from saga_engine.store.runs import FIRST_REVISION, StoredRun
from saga_engine.vocabulary import Command, Direction, Failure, Outcome

RESERVED = ReplyReceived(
    step="reserve",
    direction=Direction.ACTION,
    attempt=1,
    outcome=Outcome.SUCCEEDED,
    body={"id": "r-1", "n": 1.5},
)
CHARGED = ReplyReceived(
    step="charge",
    direction=Direction.ACTION,
    attempt=1,
    outcome=Outcome.SUCCEEDED,
    body={"id": "c-1"},
)
DECLINED = ReplyReceived(
    step="charge",
    direction=Direction.ACTION,
    attempt=1,
    outcome=Outcome.REJECTED,
    body=None,
    failure=Failure("declined", "é", {"a": [1]}),
)
"""Replies to the commands of a run of `place-order`."""

ORDERS = Saga("place-order", version=1, input=dict)


@ORDERS.step(command="inventory.reserve", reply=dict)
def reserve(order: dict) -> dict:
    return {"sku": order["sku"]}


@reserve.compensation(command="inventory.release")
def release(order: dict) -> dict:
    return {"sku": order["sku"]}


@ORDERS.step(command="payment.charge", reply=dict)
def charge(order: dict) -> dict:
    return {"card": order["card"]}


@charge.compensation(command="payment.refund")
def refund(order: dict) -> dict:
    return {"card": order["card"]}


INPUT = {"sku": "Ä1 \u20ac", "card": "ok", "amounts": [1, 2.5, None, True]}


def run_id(at: datetime | None = None) -> str:
    """A UUIDv7 (RFC 9562, 5.7) of a time."""
    moment = at or datetime(2026, 11, 15, tzinfo=UTC)
    raw = bytearray(int(moment.timestamp() * 1000).to_bytes(6, "big") + secrets.token_bytes(10))
    raw[6], raw[8] = raw[6] & 0x0F | 0x70, raw[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(raw)))


def decide_start(now: datetime, key: str | None = None, at: datetime | None = None) -> Decision:
    decision = decide(ORDERS, None, Start(run_id(at), key, INPUT), now)
    assert decision.run is not None
    return decision


def stored_run(run: Run, definition_id: int, revision: int = FIRST_REVISION) -> StoredRun:
    return StoredRun(run, definition_id, wake_at(ORDERS, run), revision)


def sends(decision: Decision) -> list[Command]:
    assert decision.run is not None
    return list(commands_to_send(decision.run, decision.events))


def journal_row(
    *decisions: Decision, recorded_at: datetime, revision: int = FIRST_REVISION
) -> NewJournalRow:
    """The row of one or more decisions about a run, each with an id of the message behind it."""
    run = decisions[-1].run
    assert run is not None
    return NewJournalRow(
        run_id=run.run_id,
        revision=revision,
        recorded_at=recorded_at,
        decisions=[
            NewDecision(decision.events, {"causation_id": f"m-{number}"})
            for number, decision in enumerate(decisions, 1)
        ],
    )


async def insert_run(
    tx: StoreTransaction,
    definition_id: int,
    *,
    key: str | None = None,
    at: datetime | None = None,
) -> Run:
    """Start a run and store it, as a worker does."""
    now = await tx.database_now()
    decision = decide_start(now, key, at)
    assert decision.run is not None
    assert await tx.insert_runs([stored_run(decision.run, definition_id)])
    await tx.append_to_journal([journal_row(decision, recorded_at=now)])
    return decision.run


async def apply_trigger(tx: StoreTransaction, run_id: str, trigger: Trigger) -> Decision:
    """Decide a trigger of a run and store the result, as a worker does."""
    now = await tx.database_now()
    before = (await tx.lock_runs([run_id]))[run_id]
    decision = decide(ORDERS, before.run, trigger, now)
    assert decision.run is not None
    after = stored_run(decision.run, before.definition_id, before.revision)
    await tx.save_runs([after], appended=[run_id])
    row = journal_row(decision, recorded_at=now, revision=before.revision + 1)
    await tx.append_to_journal([row])
    return decision


async def make_due(tx: StoreTransaction, run_id: str) -> None:
    """Let the timer of a run be due now."""
    await tx.defer_wake(run_id, timedelta(seconds=-1))


async def take_run_ids(
    tx: StoreTransaction,
    *,
    sagas: Collection[str] = (),
    definition_ids: Sequence[int] = (),
    limit: int = 100,
) -> list[str]:
    """Take the starts of *sagas* without regard to quotas, then other requests; their run ids."""
    slots = dict.fromkeys(sagas, limit)
    found = await tx.take_starts(slots, definition_ids=definition_ids, limit=limit)
    found += await tx.take_requests(definition_ids=definition_ids, limit=limit)
    return [request.run_id for request in found]
