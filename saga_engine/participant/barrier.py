"""
The barrier: one row for each command, written in the transaction of its effect.

Three cases, as named by dtm (en.dtm.pub, "Exception and Solution"):
- repeated: the command was done before; it gets its first reply, and no second effect;
- empty: a compensation whose action never happened succeeds without its handler, and leaves a
  tombstone in the action's place;
- refused: an action that arrives after its compensation finds the tombstone and is rejected.

The primary key does the work. That needs PostgreSQL at READ COMMITTED (PostgreSQL manual, 13.2.1),
which `database` sees to. Rows must outlive every message that could still arrive: see `forget`.

Nobody waits on that key, because whoever has claimed a command may be gone, and its session found
dead much later: each attempt since would keep a handler's slot and a connection for as long. So a
claim takes an advisory lock first, if it is free, and is told at once when it is not.
"""

import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from hashlib import blake2b

from sqlalchemy import (
    Column,
    DateTime,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TextClause,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from saga_engine.participant.calls import Task
from saga_engine.participant.errors import Failed
from saga_engine.protocol.command import Command
from saga_engine.vocabulary import Direction, Outcome

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

STATEMENTS = "saga_engine_barrier"
"""Of a connection's `info`: the Statements for the table; else the search path finds it."""
ROLE = "saga_engine_role"
"""The same: the role that the transaction began with."""
ROLE_CHANGED = "saga_engine_role_changed"
"""The same: whether the handler may have changed that role."""


class Case(StrEnum):
    """Why the handler is not called."""

    REPEATED = "repeated"
    EMPTY = "empty"
    REFUSED = "refused"
    IN_HAND = "in_hand"


class InHand(Exception):
    """Another transaction has the command in hand, or the action it undoes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What is replied to a command, as JSON bytes; `case` when the barrier says it.

    `left` is the task of a handler that goes on although its time is over.
    """

    outcome: Outcome
    body: bytes = field(repr=False)
    case: Case | None = None
    left: Task | None = None


REFUSED = Answer(
    Outcome.REJECTED,
    b'{"code": "compensated", "message": "The step was compensated before this command arrived.",'
    b' "details": null}',
    Case.REFUSED,
)
EMPTY = Answer(Outcome.SUCCEEDED, b"null", Case.EMPTY)
IN_HAND = Answer(
    Outcome.FAILED,
    b'{"code": "in_hand", "message": "An earlier delivery of this command has not ended yet.",'
    b' "details": null}',
    Case.IN_HAND,
)


async def enter(tx: AsyncConnection, command: Command, *, undoes: bool) -> Answer | None:
    """
    Claim a command for this transaction.

    Args:
        undoes: it compensates an action whose row is in the same database.

    Returns:
        None when it is to be performed and then recorded with `leave`; otherwise its answer.

    Raises:
        InHand: another transaction has it; end this one, and come again.
    """
    own = _key(command) | {
        "idempotency_key": command.idempotency_key,
        "attempt": command.attempt,
    }
    on: Statements = tx.info.get(STATEMENTS, WHEREVER)
    claimed = await _alone(tx, on.claim, own, _lock(command, command.direction))
    if not claimed and not (await tx.execute(on.claim_anew, own)).rowcount:
        return await _stored(tx, command, on)
    if undoes and await _alone(tx, on.bury, own, _lock(command, Direction.ACTION)):
        await leave(tx, command, EMPTY)
        return EMPTY
    return None


async def leave(tx: AsyncConnection, command: Command, answer: Answer) -> bool:
    """
    Record the answer of a claimed command; a failed one is rolled back instead.

    Returns:
        Whether this transaction is still the one that claimed it. If it is not, nothing is done.
    """
    noted = tx.info
    if ROLE in noted and noted.get(ROLE_CHANGED):
        await tx.execute(_RESTORE, {"role": noted[ROLE]})
    on: Statements = noted.get(STATEMENTS, WHEREVER)
    recorded = {"outcome": answer.outcome.value, "reply": answer.body.decode()}
    left = await tx.execute(on.leave, _key(command) | recorded)
    return bool(left.rowcount)


async def create(engine: AsyncEngine, schema: str | None = None) -> None:
    """
    Create the table where it is missing; any number of processes may do so at once.

    Args:
        schema: where, and it exists; None: the first one of the search path.
    """
    async with engine.begin() as tx:
        if await found(tx, schema):
            return
        await tx.execute(_ALONE)
        made = table.to_metadata(MetaData(), schema=schema) if schema else table
        await tx.run_sync(made.metadata.create_all)


async def found(tx: AsyncConnection, schema: str | None = None) -> str | None:
    """Find the table's schema: the one that is asked for, or else by the search path."""
    name = "saga_barrier" if schema is None else f"{_quoted(schema)}.saga_barrier"
    where: str | None = await tx.scalar(_WHERE, {"name": name})
    return where


async def forget(
    engine: AsyncEngine,
    older_than: timedelta,
    *,
    batch: int = 10_000,
    schema: str | None = None,
) -> int:
    """
    Delete rows of that age, `batch` in one transaction, and return how many.

    `schema` is where the table is, when the search path does not lead there.

    Never younger than the longest life of a run and of a message that waits in a queue or among the
    dead letters: of a step whose row is forgotten, a command that arrives is done again, and a
    compensation takes it for never done. 30 days is a careful choice.
    """
    forgotten, statement = 0, _FORGET if schema is None else _placed(_FORGET, schema)
    while True:
        async with engine.begin() as tx:
            gone = await tx.execute(statement, {"older_than": older_than, "batch": batch})
        forgotten += gone.rowcount
        if gone.rowcount < batch:
            return forgotten


async def _stored(tx: AsyncConnection, command: Command, on: "Statements") -> Answer:
    row = (await tx.execute(on.stored, _key(command))).one_or_none()
    if row is None:
        raise Failed("barrier_forgotten", "The command's row was deleted just now.")
    if row.outcome == _TOMBSTONE:
        return REFUSED
    return Answer(Outcome(row.outcome), row.reply.encode(), Case.REPEATED)


async def _alone(
    tx: AsyncConnection, statement: TextClause, values: dict[str, object], lock: int
) -> bool:
    """Change a row unless somebody else has it in hand; whether there was something to change."""
    [(mine, changed)] = await tx.execute(statement, values | {"lock": lock})
    if not mine:
        raise InHand
    return bool(changed)


def _lock(command: Command, direction: Direction) -> int:
    """Name a command as advisory locks are named: two of one name just take turns."""
    place = f"saga_barrier/{command.run_id}/{command.step}/{direction.value}"
    return int.from_bytes(blake2b(place.encode(), digest_size=8).digest(), signed=True)


def _key(command: Command) -> dict[str, object]:
    return {"run_id": command.run_id, "step": command.step, "direction": command.direction.value}


# Text and not Core's expressions: compiling them anew for each command would cost as much CPU as
# everything else here. The reply travels as text, so that it is stored the same whatever JSON
# functions the user's engine has.
# What a row says until its command is done nobody sees, unless the handler commits by itself. Then
# the effect is there and its reply is not, and the truth is that a person must look.
_CLAIM = text(
    """
    WITH lock AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(:lock) AS mine),
    claimed AS (
        INSERT INTO saga_barrier
            (run_id, step, direction, idempotency_key, attempt, outcome, reply)
        SELECT :run_id, :step, :direction, :idempotency_key, :attempt, 'failed',
            '{"code": "transaction_ended", "message": "The handler ended its transaction itself."}'
        FROM lock WHERE mine
        ON CONFLICT (run_id, step, direction) DO NOTHING RETURNING 1)
    SELECT mine, EXISTS (SELECT FROM claimed) FROM lock
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
    WITH lock AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(:lock) AS mine),
    buried AS (
        INSERT INTO saga_barrier
            (run_id, step, direction, idempotency_key, attempt, outcome, reply)
        SELECT :run_id, :step, 'action', :idempotency_key, :attempt, 'compensated', 'null'
        FROM lock WHERE mine
        ON CONFLICT (run_id, step, direction) DO UPDATE SET outcome = excluded.outcome
            WHERE saga_barrier.outcome IN ('rejected', 'compensated') RETURNING 1)
    SELECT mine, EXISTS (SELECT FROM buried) FROM lock
    """
)
# A row that this transaction has written has its number: no other one may record the answer, such
# as one that the handler began after a COMMIT of its own.
_LEAVE = text(
    """
    UPDATE saga_barrier SET outcome = :outcome, reply = CAST(:reply AS jsonb)
    WHERE run_id = :run_id AND step = :step AND direction = :direction
        AND xmin = CAST(pg_current_xact_id() AS xid)
    """
)
_STORED = text(
    """
    SELECT outcome, CAST(reply AS text) AS reply FROM saga_barrier
    WHERE run_id = :run_id AND step = :step AND direction = :direction
    """
)
_RESTORE = text("SELECT pg_catalog.set_config('role', :role, true)")
_WHERE = text(
    "SELECT nspname FROM pg_catalog.pg_namespace JOIN pg_catalog.pg_class"
    " ON pg_namespace.oid = relnamespace WHERE pg_class.oid = pg_catalog.to_regclass(:name)"
)
_ALONE = text("SELECT pg_advisory_xact_lock(hashtext('saga_barrier'))")
_FORGET = text(
    "DELETE FROM saga_barrier WHERE ctid = ANY(ARRAY("
    "SELECT ctid FROM saga_barrier WHERE at < now() - CAST(:older_than AS interval) LIMIT :batch))"
)


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements of the barrier for one table."""

    claim: TextClause
    claim_anew: TextClause
    bury: TextClause
    leave: TextClause
    stored: TextClause

    @classmethod
    def on(cls, schema: str) -> "Statements":
        """Make those for the table in a schema, whatever the search path is when they run."""
        every = _CLAIM, _CLAIM_ANEW, _BURY, _LEAVE, _STORED
        return cls(*(_placed(each, schema) for each in every))


WHEREVER = Statements(_CLAIM, _CLAIM_ANEW, _BURY, _LEAVE, _STORED)
"""For the table that the search path finds."""


def _placed(statement: TextClause, schema: str) -> TextClause:
    place = _quoted(schema).replace(":", r"\:") + ".saga_barrier"
    return text(_NAMED.sub(lambda found: f"{found[1]} {place}", statement.text))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_NAMED = re.compile(r"\b(INTO|UPDATE|FROM) saga_barrier\b")
