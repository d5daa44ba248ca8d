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
from saga_engine.vocabulary import BarrierCase, Direction, Outcome

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
    Column(
        "claimed_at", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True
    ),
    PrimaryKeyConstraint("run_id", "step", "direction"),
)
"""For your own migrations, when the participant has create_barrier=False."""

_TOMBSTONE = "compensated"

STATEMENTS_KEY = "saga_engine_barrier_statements"
"""Of a connection's `info`: the Statements for the table; else the search path finds it."""
INITIAL_ROLE_KEY = "saga_engine_initial_role"
"""The same: the role that the transaction began with."""
ROLE_CHANGED_KEY = "saga_engine_role_changed"
"""The same: whether the handler may have changed that role."""


class CommandInProgress(Exception):
    """Another transaction has the command in hand, or the action it undoes."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """
    What is replied to a command, as JSON bytes; `case` when the barrier says it.

    `left` is the task of a handler that goes on although its time is over.
    """

    outcome: Outcome
    body: bytes = field(repr=False)
    barrier_case: BarrierCase | None = None
    abandoned_task: Task | None = None


REFUSED_RESULT = CommandResult(
    Outcome.REJECTED,
    b'{"code": "compensated", "message": "The step was compensated before this command arrived.",'
    b' "details": null}',
    BarrierCase.REFUSED,
)
EMPTY_COMPENSATION_RESULT = CommandResult(Outcome.SUCCEEDED, b"null", BarrierCase.EMPTY)
IN_PROGRESS_RESULT = CommandResult(
    Outcome.FAILED,
    b'{"code": "in_progress", "message": "An earlier delivery of this command has not ended yet.",'
    b' "details": null}',
    BarrierCase.IN_PROGRESS,
)


async def claim_command(
    tx: AsyncConnection, command: Command, *, compensates_local_action: bool
) -> CommandResult | None:
    """
    Claim a command for this transaction.

    Args:
        undoes: it compensates an action whose row is in the same database.

    Returns:
        None when it is to be performed and then recorded with `leave`; otherwise its answer.

    Raises:
        InHand: another transaction has it; end this one, and come again.
    """
    row = _primary_key(command) | {
        "idempotency_key": command.idempotency_key,
        "attempt": command.attempt,
    }
    statements: BarrierStatements = tx.info.get(STATEMENTS_KEY, SEARCH_PATH_STATEMENTS)
    claimed = await _execute_if_unlocked(
        tx, statements.claim, row, _advisory_lock_id(command, command.direction)
    )
    if not claimed and not (await tx.execute(statements.reclaim, row)).rowcount:
        return await _recorded_result(tx, command, statements)
    if compensates_local_action and await _execute_if_unlocked(
        tx, statements.insert_tombstone, row, _advisory_lock_id(command, Direction.ACTION)
    ):
        await record_result(tx, command, EMPTY_COMPENSATION_RESULT)
        return EMPTY_COMPENSATION_RESULT
    return None


async def record_result(tx: AsyncConnection, command: Command, result: CommandResult) -> bool:
    """
    Record the answer of a claimed command; a failed one is rolled back instead.

    Returns:
        Whether this transaction is still the one that claimed it. If it is not, nothing is done.
    """
    connection_info = tx.info
    if INITIAL_ROLE_KEY in connection_info and connection_info.get(ROLE_CHANGED_KEY):
        await tx.execute(_RESTORE_ROLE, {"role": connection_info[INITIAL_ROLE_KEY]})
    statements: BarrierStatements = connection_info.get(STATEMENTS_KEY, SEARCH_PATH_STATEMENTS)
    result_columns = {"outcome": result.outcome.value, "reply": result.body.decode()}
    updated = await tx.execute(statements.record_result, _primary_key(command) | result_columns)
    return bool(updated.rowcount)


async def create_table(engine: AsyncEngine, schema: str | None = None) -> None:
    """
    Create the table where it is missing; any number of processes may do so at once.

    Args:
        schema: where, and it exists; None: the first one of the search path.
    """
    async with engine.begin() as tx:
        if await find_schema(tx, schema):
            return
        await tx.execute(_LOCK_TABLE_CREATION)
        barrier_in_schema = table.to_metadata(MetaData(), schema=schema) if schema else table
        await tx.run_sync(barrier_in_schema.metadata.create_all)


async def find_schema(tx: AsyncConnection, schema: str | None = None) -> str | None:
    """Find the table's schema: the one that is asked for, or else by the search path."""
    table_name = "saga_barrier" if schema is None else f"{_quote_identifier(schema)}.saga_barrier"
    schema_name: str | None = await tx.scalar(_FIND_SCHEMA, {"name": table_name})
    return schema_name


async def delete_older_than(
    engine: AsyncEngine,
    age: timedelta,
    *,
    batch_size: int = 10_000,
    schema: str | None = None,
) -> int:
    """
    Delete rows of that age, `batch` in one transaction, and return how many.

    `schema` is where the table is, when the search path does not lead there.

    Never younger than the longest life of a run and of a message that waits in a queue or among the
    dead letters: of a step whose row is forgotten, a command that arrives is done again, and a
    compensation takes it for never done. 30 days is a careful choice.
    """
    total_deleted, statement = (
        0,
        _DELETE_OLDER_THAN if schema is None else _with_schema(_DELETE_OLDER_THAN, schema),
    )
    while True:
        async with engine.begin() as tx:
            deleted = await tx.execute(statement, {"older_than": age, "batch_size": batch_size})
        total_deleted += deleted.rowcount
        if deleted.rowcount < batch_size:
            return total_deleted


async def _recorded_result(
    tx: AsyncConnection, command: Command, statements: "BarrierStatements"
) -> CommandResult:
    row = (await tx.execute(statements.select_result, _primary_key(command))).one_or_none()
    if row is None:
        raise Failed("barrier_row_deleted", "The command's row was deleted just now.")
    if row.outcome == _TOMBSTONE:
        return REFUSED_RESULT
    return CommandResult(Outcome(row.outcome), row.reply.encode(), BarrierCase.REPEATED)


async def _execute_if_unlocked(
    tx: AsyncConnection, statement: TextClause, parameters: dict[str, object], lock_id: int
) -> bool:
    """Change a row unless somebody else has it in hand; whether there was something to change."""
    [(lock_acquired, changed)] = await tx.execute(statement, parameters | {"lock_id": lock_id})
    if not lock_acquired:
        raise CommandInProgress
    return bool(changed)


def _advisory_lock_id(command: Command, direction: Direction) -> int:
    """Name a command as advisory locks are named: two of one name just take turns."""
    lock_name = f"saga_barrier/{command.run_id}/{command.step}/{direction.value}"
    return int.from_bytes(blake2b(lock_name.encode(), digest_size=8).digest(), signed=True)


def _primary_key(command: Command) -> dict[str, object]:
    return {"run_id": command.run_id, "step": command.step, "direction": command.direction.value}


# Text and not Core's expressions: compiling them anew for each command would cost as much CPU as
# everything else here. The reply travels as text, so that it is stored the same whatever JSON
# functions the user's engine has.
# What a row says until its command is done nobody sees, unless the handler commits by itself. Then
# the effect is there and its reply is not, and the truth is that a person must look.
_CLAIM = text(
    """
    WITH lock AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(:lock_id) AS lock_acquired),
    claimed AS (
        INSERT INTO saga_barrier
            (run_id, step, direction, idempotency_key, attempt, outcome, reply)
        SELECT :run_id, :step, :direction, :idempotency_key, :attempt, 'failed',
            '{"code": "transaction_ended", "message": "The handler ended its transaction itself."}'
        FROM lock WHERE lock_acquired
        ON CONFLICT (run_id, step, direction) DO NOTHING RETURNING 1)
    SELECT lock_acquired, EXISTS (SELECT FROM claimed) FROM lock
    """
)
# After a rejection an operator may have the step tried again: a new key and a higher attempt.
_RECLAIM = text(
    """
    UPDATE saga_barrier SET idempotency_key = :idempotency_key, attempt = :attempt,
        claimed_at = now(), outcome = 'failed',
        reply =
        '{"code": "transaction_ended", "message": "The handler ended its transaction itself."}'
    WHERE run_id = :run_id AND step = :step AND direction = :direction
        AND outcome = 'rejected' AND idempotency_key <> :idempotency_key AND attempt < :attempt
    """
)
# A rejected action did nothing, but could be tried again later: it is inserted as well.
_INSERT_TOMBSTONE = text(
    """
    WITH lock AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(:lock_id) AS lock_acquired),
    inserted AS (
        INSERT INTO saga_barrier
            (run_id, step, direction, idempotency_key, attempt, outcome, reply)
        SELECT :run_id, :step, 'action', :idempotency_key, :attempt, 'compensated', 'null'
        FROM lock WHERE lock_acquired
        ON CONFLICT (run_id, step, direction) DO UPDATE SET outcome = excluded.outcome
            WHERE saga_barrier.outcome IN ('rejected', 'compensated') RETURNING 1)
    SELECT lock_acquired, EXISTS (SELECT FROM inserted) FROM lock
    """
)
# A row that this transaction has written has its number: no other one may record the answer, such
# as one that the handler began after a COMMIT of its own.
_RECORD_RESULT = text(
    """
    UPDATE saga_barrier SET outcome = :outcome, reply = CAST(:reply AS jsonb)
    WHERE run_id = :run_id AND step = :step AND direction = :direction
        AND xmin = CAST(pg_current_xact_id() AS xid)
    """
)
_SELECT_RESULT = text(
    """
    SELECT outcome, CAST(reply AS text) AS reply FROM saga_barrier
    WHERE run_id = :run_id AND step = :step AND direction = :direction
    """
)
_RESTORE_ROLE = text("SELECT pg_catalog.set_config('role', :role, true)")
_FIND_SCHEMA = text(
    "SELECT nspname FROM pg_catalog.pg_namespace JOIN pg_catalog.pg_class"
    " ON pg_namespace.oid = relnamespace WHERE pg_class.oid = pg_catalog.to_regclass(:name)"
)
_LOCK_TABLE_CREATION = text("SELECT pg_advisory_xact_lock(hashtext('saga_barrier'))")
_DELETE_OLDER_THAN = text(
    "DELETE FROM saga_barrier WHERE ctid = ANY(ARRAY("
    "SELECT ctid FROM saga_barrier WHERE claimed_at < now() - CAST(:older_than AS interval)"
    " LIMIT :batch_size))"
)


@dataclass(frozen=True, slots=True)
class BarrierStatements:
    """The statements of the barrier for one table."""

    claim: TextClause
    reclaim: TextClause
    insert_tombstone: TextClause
    record_result: TextClause
    select_result: TextClause

    @classmethod
    def for_schema(cls, schema: str) -> "BarrierStatements":
        """Make those for the table in a schema, whatever the search path is when they run."""
        templates = _CLAIM, _RECLAIM, _INSERT_TOMBSTONE, _RECORD_RESULT, _SELECT_RESULT
        return cls(*(_with_schema(each, schema) for each in templates))


SEARCH_PATH_STATEMENTS = BarrierStatements(
    _CLAIM, _RECLAIM, _INSERT_TOMBSTONE, _RECORD_RESULT, _SELECT_RESULT
)
"""For the table that the search path finds."""


def _with_schema(statement: TextClause, schema: str) -> TextClause:
    qualified_name = _quote_identifier(schema).replace(":", r"\:") + ".saga_barrier"
    return text(_TABLE_REFERENCE.sub(lambda found: f"{found[1]} {qualified_name}", statement.text))


def _quote_identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_TABLE_REFERENCE = re.compile(r"\b(INTO|UPDATE|FROM) saga_barrier\b")
