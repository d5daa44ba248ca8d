"""
The barrier's table in PostgreSQL; see `barrier.BarrierTable`.

A handler may change the role of its transaction. The result is recorded with the role that the
transaction began with, because the handler's role may have no permission for the table.
"""

from hashlib import blake2b
from uuid import UUID

from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.participant.barrier import CommandInProgress, CommandResult, RecordedResult
from saga_engine.participant.barrier_statements import (
    RESTORE_ROLE,
    SEARCH_PATH_STATEMENTS,
    BarrierStatements,
)
from saga_engine.postgres.session_changes import ROLE_CHANGED_KEY
from saga_engine.vocabulary import Command, Direction


class SqlBarrierTable:
    """
    A BarrierTable.

    Args:
        connection: in the transaction of the command.
        statements: for the schema of the table.
        initial_role: the role at the beginning of the transaction; None: the session's.
    """

    __slots__ = ("_connection", "_initial_role", "_statements")

    def __init__(
        self,
        connection: AsyncConnection,
        statements: BarrierStatements = SEARCH_PATH_STATEMENTS,
        initial_role: str | None = None,
    ) -> None:
        self._connection = connection
        self._statements = statements
        self._initial_role = initial_role

    async def claim(self, command: Command) -> bool:
        """Insert the command's row; see BarrierTable."""
        return await self._execute_if_unlocked(
            self._statements.claim, command, lock_id=advisory_lock_id(command, command.direction)
        )

    async def reclaim(self, command: Command) -> bool:
        """Claim the row of a rejected command again; see BarrierTable."""
        updated = await self._connection.execute(
            self._statements.reclaim, _primary_key(command) | attempt_columns(command)
        )
        return bool(updated.rowcount)

    async def insert_tombstone(self, command: Command) -> bool:
        """Insert the row of the action that a command compensates; see BarrierTable."""
        return await self._execute_if_unlocked(
            self._statements.insert_tombstone,
            command,
            lock_id=advisory_lock_id(command, Direction.ACTION),
        )

    async def record_result(self, command: Command, result: CommandResult) -> bool:
        """Record the result of a claimed command; see BarrierTable."""
        if self._connection.info.get(ROLE_CHANGED_KEY):
            await self._connection.execute(RESTORE_ROLE, {"role": self._initial_role})
        result_columns = {"outcome": result.outcome.value, "reply": result.body.decode()}
        updated = await self._connection.execute(
            self._statements.record_result, _primary_key(command) | result_columns
        )
        return bool(updated.rowcount)

    async def select_result(self, command: Command) -> RecordedResult | None:
        """Read the result in the command's row; see BarrierTable."""
        rows = await self._connection.execute(self._statements.select_result, _primary_key(command))
        row = rows.one_or_none()
        return None if row is None else RecordedResult(row.outcome, row.reply)

    async def _execute_if_unlocked(
        self, statement: TextClause, command: Command, *, lock_id: int
    ) -> bool:
        """Execute a statement that changes a row, unless another transaction has its lock."""
        columns = _primary_key(command) | attempt_columns(command)
        [(lock_acquired, changed)] = await self._connection.execute(
            statement, {**columns, "lock_id": lock_id}
        )
        if not lock_acquired:
            raise CommandInProgress
        return bool(changed)


def advisory_lock_id(command: Command, direction: Direction) -> int:
    """Hash a command to a lock id. Two commands with the same id only execute one after another."""
    lock_name = f"saga_barrier/{command.run_id}/{command.step}/{direction.value}"
    return int.from_bytes(blake2b(lock_name.encode(), digest_size=8).digest(), signed=True)


def _primary_key(command: Command) -> dict[str, object]:
    return {
        "run_id": UUID(command.run_id),
        "step": command.step,
        "direction": command.direction.value,
    }


def attempt_columns(command: Command) -> dict[str, object]:
    """The columns that identify an attempt of a command."""
    return {"idempotency_key": command.idempotency_key, "attempt": command.attempt}
