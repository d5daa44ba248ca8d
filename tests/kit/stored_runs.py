"""Stored runs for tests: a saga of two steps, and its decisions, without a worker."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from saga_engine.decider.commands import commands_to_send, wake_at
from saga_engine.decider.decide import decide
from saga_engine.decider.decision import Decision
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import ReplyReceived, Start, Trigger
from saga_engine.saga.definition import Saga
from saga_engine.store.batch_append import AppendResult, BatchAppend, NewKey, RunAppend
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.store.journal import NewDecision, NewJournalRow
from saga_engine.store.outbox import OutboxRow
from saga_engine.store.runs import FIRST_REVISION, StoredRun
from saga_engine.vocabulary import Command, Direction, Failure, Json, Outcome

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
    return StoredRun(
        run=run,
        definition_id=definition_id,
        wake_at=wake_at(ORDERS, run),
        revision=revision,
    )


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


def run_append(
    *decisions: Decision,
    definition_id: int,
    recorded_at: datetime,
    revision: int = FIRST_REVISION,
    commands: Sequence[Command] = (),
) -> RunAppend:
    """What one batch appends for one or more decisions about a run."""
    run = decisions[-1].run
    assert run is not None
    return RunAppend(
        stored_run=stored_run(run, definition_id, revision),
        journal_row=journal_row(*decisions, recorded_at=recorded_at, revision=revision),
        commands=commands,
    )


async def start_append(
    tx: StoreTransaction, definition_id: int, key: str | None = None
) -> RunAppend:
    """What is appended of a new run, with its command and the reservation of its key."""
    now = await tx.database_now()
    decision = decide_start(now, key)
    append = run_append(
        decision, definition_id=definition_id, recorded_at=now, commands=sends(decision)
    )
    return append if key is None else replace(append, new_key=NewKey(ORDERS.name, key, b"d" * 32))


async def reply_append(tx: StoreTransaction, run: str, trigger=RESERVED) -> RunAppend:
    """What is appended of a reply to a run as it is now, with the next command."""
    now = await tx.database_now()
    before = (await tx.read_runs([run]))[run]
    decision = decide(ORDERS, before.run, trigger, now)
    return run_append(
        decision,
        definition_id=before.definition_id,
        recorded_at=now,
        revision=before.revision + 1,
        commands=sends(decision),
    )


def run_of(append: RunAppend) -> str:
    return append.journal_row.run_id


async def append_run(tx: StoreTransaction, run: RunAppend) -> AppendResult:
    """Append one run, which no other transaction may have changed."""
    result = await tx.append_runs(BatchAppend(runs=[run]))
    assert not result.lost
    return result


async def insert_run(
    tx: StoreTransaction,
    definition_id: int,
    *,
    key: str | None = None,
    at: datetime | None = None,
) -> Run:
    """Start a run and store it, as a worker does, without its commands."""
    now = await tx.database_now()
    decision = decide_start(now, key, at)
    assert decision.run is not None
    await append_run(tx, run_append(decision, definition_id=definition_id, recorded_at=now))
    return decision.run


async def apply_trigger(
    tx: StoreTransaction,
    run_id: str,
    trigger: Trigger,
    *,
    with_commands: bool = False,
    with_snapshot: bool = False,
) -> Decision:
    """Decide a trigger of a run and store the result, as a worker does."""
    now = await tx.database_now()
    before = (await tx.read_runs([run_id]))[run_id]
    decision = decide(ORDERS, before.run, trigger, now)
    append = run_append(
        decision,
        definition_id=before.definition_id,
        recorded_at=now,
        revision=before.revision + 1,
        commands=sends(decision) if with_commands else (),
    )
    if with_snapshot:
        stored = replace(append.stored_run, snapshot_revision=append.stored_run.revision)
        append = replace(append, stored_run=stored)
    await append_run(tx, append)
    await tx.record_incidents([(run_id, event) for event in decision.events])
    return decision


async def add_commands(
    tx: StoreTransaction, definition_id: int, number: int, payload: Json = None
) -> list[OutboxRow]:
    """Start some runs, each with its first command, and return these in their order."""
    now = await tx.database_now()
    appends = []
    for _ in range(number):
        decision = decide_start(now)
        [command] = sends(decision)
        if payload is not None:
            command = replace(command, payload=payload)
        appends.append(
            run_append(decision, definition_id=definition_id, recorded_at=now, commands=[command])
        )
    return list((await tx.append_runs(BatchAppend(runs=appends))).outbox)


async def delete_commands(tx: StoreTransaction, ids: Sequence[int]) -> None:
    """Delete commands that the broker has confirmed."""
    await tx.append_runs(BatchAppend(confirmed_ids=ids))


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
