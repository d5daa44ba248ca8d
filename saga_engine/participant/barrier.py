"""
The barrier: one row for each command, written in the transaction of the command's effect.

It handles the three cases that dtm names (en.dtm.pub, "Exception and Solution"):
- repeated: the command was executed before. It gets its first reply and has no second effect.
- empty: a compensation whose action never ran succeeds without calling the handler, and inserts a
  tombstone for the action.
- refused: an action that arrives after its compensation finds the tombstone and is rejected.

The table's primary key guarantees this. It needs PostgreSQL at READ COMMITTED (PostgreSQL manual,
13.2.1), which `database` sets. A row must be kept for as long as a message about its command may
still arrive: see `delete_older_than`.

No transaction waits for another one's row. The process that has claimed a command may be gone, and
PostgreSQL may find its session dead only much later; each attempt that waited would use a handler
slot and a connection until then. So a claim first tries to take an advisory lock, and raises
CommandInProgress immediately if another transaction has it.
"""

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
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from saga_engine.participant.barrier_statements import (
    FIND_SCHEMA,
    LOCK_TABLE_CREATION,
    RESTORE_ROLE,
    SEARCH_PATH_STATEMENTS,
    BarrierStatements,
    delete_older_than_statement,
    qualified_table_name,
)
from saga_engine.participant.calls import Task
from saga_engine.participant.errors import Failed, FailureCode
from saga_engine.protocol.command import Command
from saga_engine.vocabulary import BarrierResult, Direction, Outcome

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
        "claimed_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        index=True,
    ),
    PrimaryKeyConstraint("run_id", "step", "direction"),
)
"""For your own migrations, when the participant has create_barrier=False."""

_TOMBSTONE = "compensated"

STATEMENTS_KEY = "saga_engine_barrier_statements"
"""A key of a connection's `info`: the BarrierStatements to use instead of those that rely on the
search path."""
INITIAL_ROLE_KEY = "saga_engine_initial_role"
"""A key of a connection's `info`: the role at the beginning of the transaction."""
ROLE_CHANGED_KEY = "saga_engine_role_changed"
"""A key of a connection's `info`: whether the handler may have changed the role."""


class CommandInProgress(Exception):
    """Another transaction is executing the command, or the action that it compensates."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """
    The reply to a command.

    Args:
        outcome: succeeded, rejected or failed.
        body: the reply's body, as JSON bytes.
        barrier_result: why the handler was not called; None when it was.
        abandoned_task: the task of a handler that still runs after its timeout.
    """

    outcome: Outcome
    body: bytes = field(repr=False)
    barrier_result: BarrierResult | None = None
    abandoned_task: Task | None = None


REFUSED_RESULT = CommandResult(
    Outcome.REJECTED,
    b'{"code": "compensated", "message": "The step was compensated before this command arrived.",'
    b' "details": null}',
    BarrierResult.REFUSED,
)
EMPTY_COMPENSATION_RESULT = CommandResult(Outcome.SUCCEEDED, b"null", BarrierResult.EMPTY)
IN_PROGRESS_RESULT = CommandResult(
    Outcome.FAILED,
    b'{"code": "in_progress", "message": "An earlier delivery of this command has not ended yet.",'
    b' "details": null}',
    BarrierResult.IN_PROGRESS,
)


async def claim_command(
    tx: AsyncConnection, command: Command, *, compensates_local_action: bool
) -> CommandResult | None:
    """
    Claim a command for this transaction.

    Args:
        compensates_local_action: it compensates an action whose row is in the same database.

    Returns:
        None if the command must be executed and its result recorded with `record_result`;
        otherwise the result to reply with.

    Raises:
        CommandInProgress: another transaction executes it; end this transaction and try again.
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
    Record the result of a claimed command. A failure is not recorded: it is rolled back instead.

    Returns:
        Whether this transaction is still the one that claimed the command. If not, nothing is
        recorded.
    """
    connection_info = tx.info
    if INITIAL_ROLE_KEY in connection_info and connection_info.get(ROLE_CHANGED_KEY):
        await tx.execute(RESTORE_ROLE, {"role": connection_info[INITIAL_ROLE_KEY]})
    statements: BarrierStatements = connection_info.get(STATEMENTS_KEY, SEARCH_PATH_STATEMENTS)
    result_columns = {"outcome": result.outcome.value, "reply": result.body.decode()}
    updated = await tx.execute(statements.record_result, _primary_key(command) | result_columns)
    return bool(updated.rowcount)


async def create_table(engine: AsyncEngine, schema: str | None = None) -> None:
    """
    Create the table if it is missing; any number of processes may do so at once.

    Args:
        schema: an existing schema; None: the first one of the search path.
    """
    async with engine.begin() as tx:
        if await find_schema(tx, schema):
            return
        await tx.execute(LOCK_TABLE_CREATION)
        barrier_in_schema = table.to_metadata(MetaData(), schema=schema) if schema else table
        await tx.run_sync(barrier_in_schema.metadata.create_all)


async def find_schema(tx: AsyncConnection, schema: str | None = None) -> str | None:
    """
    Find the schema that has the table; None if there is none.

    Args:
        schema: the only schema to look in; None: the search path.
    """
    found: str | None = await tx.scalar(FIND_SCHEMA, {"name": qualified_table_name(schema)})
    return found


async def delete_older_than(
    engine: AsyncEngine,
    age: timedelta,
    *,
    batch_size: int = 10_000,
    schema: str | None = None,
) -> int:
    """
    Delete the rows that are older than an age, in transactions of up to `batch_size` rows.

    The age must be longer than the longest life of a run, and than the time that a message may stay
    in a queue or among the dead letters. Once its row is deleted, a command that arrives again is
    executed again, and its compensation finds nothing to undo. 30 days is a cautious choice.

    Args:
        engine: of the participant's database.
        age: how long ago the command must have been claimed.
        batch_size: rows per transaction.
        schema: the schema of the table, if the search path does not find it.

    Returns:
        The number of deleted rows.
    """
    total_deleted = 0
    statement = delete_older_than_statement(schema)
    while True:
        async with engine.begin() as tx:
            deleted = await tx.execute(statement, {"older_than": age, "batch_size": batch_size})
        total_deleted += deleted.rowcount
        if deleted.rowcount < batch_size:
            return total_deleted


async def _recorded_result(
    tx: AsyncConnection, command: Command, statements: BarrierStatements
) -> CommandResult:
    row = (await tx.execute(statements.select_result, _primary_key(command))).one_or_none()
    if row is None:
        raise Failed(FailureCode.BARRIER_ROW_DELETED, "The command's row was deleted just now.")
    if row.outcome == _TOMBSTONE:
        return REFUSED_RESULT
    return CommandResult(Outcome(row.outcome), row.reply.encode(), BarrierResult.REPEATED)


async def _execute_if_unlocked(
    tx: AsyncConnection, statement: TextClause, parameters: dict[str, object], lock_id: int
) -> bool:
    """
    Execute a statement that changes a row, unless another transaction has the command's lock.

    Returns:
        Whether a row was changed.

    Raises:
        CommandInProgress: another transaction has the lock.
    """
    [(lock_acquired, changed)] = await tx.execute(statement, parameters | {"lock_id": lock_id})
    if not lock_acquired:
        raise CommandInProgress
    return bool(changed)


def _advisory_lock_id(command: Command, direction: Direction) -> int:
    """Hash a command to a lock id. Two commands with the same id only execute one after another."""
    lock_name = f"saga_barrier/{command.run_id}/{command.step}/{direction.value}"
    return int.from_bytes(blake2b(lock_name.encode(), digest_size=8).digest(), signed=True)


def _primary_key(command: Command) -> dict[str, object]:
    return {"run_id": command.run_id, "step": command.step, "direction": command.direction.value}
