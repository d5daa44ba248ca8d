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

`BarrierTable` has one method for each statement. `sql_barrier_table` executes them in PostgreSQL;
the simulation passes in a model of it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

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
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from saga_engine.participant.barrier_statements import (
    FIND_SCHEMA,
    LOCK_TABLE_CREATION,
    delete_older_than_statement,
    qualified_table_name,
)
from saga_engine.participant.failure_codes import FailureCode
from saga_engine.participant.handler_calls import Task
from saga_engine.protocol.rejection import Failed
from saga_engine.vocabulary import BarrierResult, Command, Outcome

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

TOMBSTONE = "compensated"
"""The outcome in the row of an action that was compensated before it arrived."""


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


@dataclass(frozen=True, slots=True)
class RecordedResult:
    """The result in a command's row: an outcome or TOMBSTONE, and the reply's body as JSON."""

    outcome: str
    reply: str


class BarrierTable(Protocol):
    """The barrier's table, in one transaction of the participant's database."""

    async def claim(self, command: Command) -> bool:
        """
        Insert the command's row, which says that it failed until `record_result` is called.

        Returns:
            Whether the row is new.

        Raises:
            CommandInProgress: another transaction is executing the command.
        """

    async def reclaim(self, command: Command) -> bool:
        """
        Claim the row of a rejected command again, for its retry by an operator.

        Returns:
            Whether it is such a retry: its key differs, and its attempt is a later one.
        """

    async def insert_tombstone(self, command: Command) -> bool:
        """
        Insert the row of the action that a command compensates, so that the action is refused.

        Returns:
            Whether there is nothing to compensate: the action has no row, or it was rejected.

        Raises:
            CommandInProgress: another transaction is executing the action.
        """

    async def record_result(self, command: Command, result: CommandResult) -> bool:
        """
        Record the result of a claimed command. A failure is rolled back instead.

        Returns:
            Whether this transaction is still the one that claimed the command. If not, nothing is
            recorded.
        """

    async def select_result(self, command: Command) -> RecordedResult | None:
        """Read the result in the command's row; None if there is no row."""


@dataclass(frozen=True, slots=True)
class BatchClaim:
    """
    A command of a batch that is to be claimed.

    Args:
        command: no other command of the batch has its run and step.
        compensates_local_action: it compensates an action whose row is in the same database.
    """

    command: Command
    compensates_local_action: bool


class BatchBarrierTable(Protocol):
    """The barrier's table, in one transaction of several commands."""

    async def claim_all(self, claims: Sequence[BatchClaim]) -> Collection[int]:
        """
        Claim the commands that have no row and that no other transaction is executing.

        A compensation is claimed if its action succeeded. Nothing is changed for the other
        commands, which must be executed alone, after this transaction.

        Returns:
            The indexes of the claimed commands.
        """


async def claim_command(
    barrier_table: BarrierTable, command: Command, *, compensates_local_action: bool
) -> CommandResult | None:
    """
    Claim a command for the transaction of *barrier_table*.

    Args:
        compensates_local_action: it compensates an action whose row is in the same database.

    Returns:
        None if the command must be executed and its result recorded with `record_result`;
        otherwise the result to reply with.

    Raises:
        CommandInProgress: another transaction executes it; end this transaction and try again.
    """
    if not await barrier_table.claim(command) and not await barrier_table.reclaim(command):
        return await _recorded_result(barrier_table, command)
    if compensates_local_action and await barrier_table.insert_tombstone(command):
        await barrier_table.record_result(command, EMPTY_COMPENSATION_RESULT)
        return EMPTY_COMPENSATION_RESULT
    return None


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


async def _recorded_result(barrier_table: BarrierTable, command: Command) -> CommandResult:
    recorded = await barrier_table.select_result(command)
    if recorded is None:
        raise Failed(FailureCode.BARRIER_ROW_DELETED, "The command's row was deleted just now.")
    if recorded.outcome == TOMBSTONE:
        return REFUSED_RESULT
    return CommandResult(Outcome(recorded.outcome), recorded.reply.encode(), BarrierResult.REPEATED)
