"""
The barrier: one row for each command, written in the transaction of its effect.

Three cases, as named by dtm (en.dtm.pub, "Exception and Solution"):
- repeated: the command was done before; it gets its first reply, and no second effect;
- empty: a compensation whose action never happened succeeds without its handler, and leaves a
  tombstone in the action's place;
- refused: an action that arrives after its compensation finds the tombstone and is rejected.

The primary key does the work: a second delivery of a command waits on it until the first one's
transaction has ended. That needs PostgreSQL at READ COMMITTED (PostgreSQL manual, 13.2.1), which
`database` sees to. Rows must outlive every message that could still arrive: see `forget`.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import (
    Column,
    DateTime,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from saga_engine.broker.command import Command
from saga_engine.participant.refusal import Failed
from saga_engine.saga.vocabulary import Outcome

metadata = MetaData()

table = Table(
    "saga_barrier",
    metadata,
    Column("run_id", Uuid, nullable=False),
    Column("step", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reply", JSONB, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
    PrimaryKeyConstraint("run_id", "step", "direction"),
)
"""For your own migrations, when the participant has create_barrier=False."""

_TOMBSTONE = "compensated"


class Case(StrEnum):
    """Why the handler is not called."""

    REPEATED = "repeated"
    EMPTY = "empty"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is replied to a command, as JSON bytes; `case` when the barrier says it."""

    outcome: Outcome
    body: bytes = field(repr=False)
    case: Case | None = None


REFUSED = Answer(
    Outcome.REJECTED,
    b'{"code": "compensated", "message": "The step was compensated before this command arrived.",'
    b' "details": null}',
    Case.REFUSED,
)
EMPTY = Answer(Outcome.SUCCEEDED, b"null", Case.EMPTY)


async def enter(tx: AsyncConnection, command: Command, *, undoes: bool) -> Answer | None:
    """
    Claim a command for this transaction, waiting for another one that has it in hand.

    Args:
        undoes: it compensates an action whose row is in the same database.

    Returns:
        None when it is to be performed and then recorded with `leave`; otherwise its answer.
    """
    own = _key(command) | {
        "idempotency_key": command.idempotency_key,
        "attempt": command.attempt,
    }
    if not await _changes(tx, _CLAIM, own) and not await _changes(tx, _CLAIM_ANEW, own):
        return await _stored(tx, command)
    if undoes and await _changes(tx, _BURY, own):
        await leave(tx, command, EMPTY)
        return EMPTY
    return None


async def leave(tx: AsyncConnection, command: Command, answer: Answer) -> None:
    """Record the answer of a claimed command; a failed one is rolled back instead."""
    recorded = {"outcome": answer.outcome.value, "reply": answer.body.decode()}
    await tx.execute(_LEAVE, _key(command) | recorded)


async def create(engine: AsyncEngine) -> None:
    """Create the table where it is missing; any number of processes may do so at once."""
    async with engine.begin() as tx:
        if (await tx.execute(_EXISTS)).scalar():
            return
        await tx.execute(_ALONE)
        await tx.run_sync(metadata.create_all)


async def forget(engine: AsyncEngine, older_than: timedelta, *, batch: int = 10_000) -> int:
    """
    Delete rows of that age, `batch` in one transaction, and return how many.

    Never younger than the longest life of a run and of a message that waits in a queue or among the
    dead letters: of a step whose row is forgotten, a command that arrives is done again, and a
    compensation takes it for never done. 30 days is a careful choice.
    """
    forgotten = 0
    while True:
        async with engine.begin() as tx:
            found = await tx.execute(_FORGET, {"older_than": older_than, "batch": batch})
        forgotten += found.rowcount
        if found.rowcount < batch:
            return forgotten


async def _stored(tx: AsyncConnection, command: Command) -> Answer:
    row = (await tx.execute(_STORED, _key(command))).one_or_none()
    if row is None:
        raise Failed("barrier_forgotten", "The command's row was deleted just now.")
    if row.outcome == _TOMBSTONE:
        return REFUSED
    return Answer(Outcome(row.outcome), row.reply.encode(), Case.REPEATED)


async def _changes(tx: AsyncConnection, statement: object, values: dict[str, object]) -> bool:
    result = await tx.execute(statement, values)  # type: ignore[call-overload]  # a TextClause
    return bool(result.rowcount)


def _key(command: Command) -> dict[str, object]:
    return {"run_id": command.run_id, "step": command.step, "direction": command.direction.value}


# Text and not Core's expressions: compiling them anew for each command would cost as much CPU as
# everything else here. The reply travels as text, so that it is stored the same whatever JSON
# functions the user's engine has.
# What a row says until its command is done nobody sees, unless the handler commits by itself. Then
# the effect is there and its reply is not, and the truth is that a person must look.
_CLAIM = text(
    """
    INSERT INTO saga_barrier
        (run_id, step, direction, idempotency_key, attempt, outcome, reply)
    VALUES (:run_id, :step, :direction, :idempotency_key, :attempt, 'failed',
        '{"code": "transaction_ended", "message": "The handler ended its transaction itself."}')
    ON CONFLICT (run_id, step, direction) DO NOTHING
    """
)
# After a rejection an operator may have the step tried again: a new key and a higher attempt.
_CLAIM_ANEW = text(
    """
    UPDATE saga_barrier SET idempotency_key = :idempotency_key, attempt = :attempt, at = now(),
        outcome = 'failed',
        reply =
        '{"code": "transaction_ended", "message": "The handler ended its transaction itself."}'
    WHERE run_id = :run_id AND step = :step AND direction = :direction
        AND outcome = 'rejected' AND idempotency_key <> :idempotency_key AND attempt < :attempt
    """
)
# A rejected action did nothing, but could be tried again later: it is buried as well.
_BURY = text(
    """
    INSERT INTO saga_barrier
        (run_id, step, direction, idempotency_key, attempt, outcome, reply)
    VALUES (:run_id, :step, 'action', :idempotency_key, :attempt, 'compensated', 'null')
    ON CONFLICT (run_id, step, direction) DO UPDATE SET outcome = excluded.outcome
        WHERE saga_barrier.outcome IN ('rejected', 'compensated')
    """
)
_LEAVE = text(
    """
    UPDATE saga_barrier SET outcome = :outcome, reply = CAST(:reply AS jsonb)
    WHERE run_id = :run_id AND step = :step AND direction = :direction
    """
)
_STORED = text(
    """
    SELECT outcome, CAST(reply AS text) AS reply FROM saga_barrier
    WHERE run_id = :run_id AND step = :step AND direction = :direction
    """
)
_EXISTS = text("SELECT to_regclass('saga_barrier') IS NOT NULL")
_ALONE = text("SELECT pg_advisory_xact_lock(hashtext('saga_barrier'))")
_FORGET = text(
    "DELETE FROM saga_barrier WHERE ctid = ANY(ARRAY("
    "SELECT ctid FROM saga_barrier WHERE at < now() - CAST(:older_than AS interval) LIMIT :batch))"
)
