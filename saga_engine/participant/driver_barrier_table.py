"""
The barrier's table in PostgreSQL over the driver, for a database that is given as a URL.

It executes the statements of `sql_barrier_table` without SQLAlchemy, which would use several times
the processor time of the driver. The first statement of a transaction carries its BEGIN.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import orjson

from saga_engine.participant.barrier import (
    BatchClaim,
    CommandInProgress,
    CommandResult,
    RecordedResult,
)
from saga_engine.participant.driver_statements import DriverStatements
from saga_engine.participant.pipelined_connection import PipelinedConnection
from saga_engine.participant.sql_barrier_table import advisory_lock_id, attempt_columns
from saga_engine.postgres.rows import DriverRows
from saga_engine.postgres.statement import Statement
from saga_engine.vocabulary import Command, Direction


class DriverBarrierTable:
    """
    A BarrierTable and a BatchBarrierTable.

    Args:
        connection: in the transaction of the command.
        statements: for the schema of the table.
        watch: watches a statement of the connection, which may be lost.
    """

    __slots__ = ("_connection", "_statements", "_watch")

    def __init__(
        self,
        connection: PipelinedConnection,
        statements: DriverStatements,
        watch: AbstractContextManager[None],
    ) -> None:
        self._connection = connection
        self._statements = statements
        self._watch = watch

    async def claim(self, command: Command) -> bool:
        """Insert the command's row; see BarrierTable."""
        return await self._execute_if_unlocked(self._statements.claim, command, command.direction)

    async def reclaim(self, command: Command) -> bool:
        """Claim the row of a rejected command again; see BarrierTable."""
        columns = primary_key(command) | attempt_columns(command)
        return bool((await self.execute(self._statements.reclaim, columns)).rowcount)

    async def insert_tombstone(self, command: Command) -> bool:
        """Insert the row of the action that a command compensates; see BarrierTable."""
        return await self._execute_if_unlocked(
            self._statements.insert_tombstone, command, Direction.ACTION
        )

    async def record_result(self, command: Command, result: CommandResult) -> bool:
        """Record the result of a claimed command; see BarrierTable."""
        columns = result_columns(command, result)
        return bool((await self.execute(self._statements.record_result, columns)).rowcount)

    async def select_result(self, command: Command) -> RecordedResult | None:
        """Read the result in the command's row; see BarrierTable."""
        rows = await self.execute(self._statements.select_result, primary_key(command))
        row = rows.one_or_none()
        return None if row is None else RecordedResult(row.outcome, row.reply)

    async def claim_all(self, claims: Sequence[BatchClaim]) -> Collection[int]:
        """Claim the commands that have no row; see BatchBarrierTable."""
        columns = [_claim_columns(number, claim) for number, claim in enumerate(claims)]
        claimed = await self.execute(
            self._statements.claim_all, {"claims": orjson.dumps(columns).decode()}
        )
        return claimed.scalars()

    async def execute(self, statement: Statement, columns: Mapping[str, Any]) -> DriverRows:
        """Execute a statement under the watch for lost statements."""
        with self._watch:
            return await self._connection.execute_statement(statement, columns)

    async def _execute_if_unlocked(
        self, statement: Statement, command: Command, locked_direction: Direction
    ) -> bool:
        """Execute a statement that changes a row, unless another transaction has its lock."""
        lock_id = {"lock_id": advisory_lock_id(command, locked_direction)}
        columns = primary_key(command) | attempt_columns(command) | lock_id
        [(lock_acquired, changed)] = await self.execute(statement, columns)
        if not lock_acquired:
            raise CommandInProgress
        return bool(changed)


def primary_key(command: Command) -> dict[str, str]:
    """The columns that identify a command; the driver reads the text of a UUID."""
    return {
        "run_id": command.run_id,
        "step": command.step,
        "direction": command.direction.value,
    }


def _claim_columns(number: int, claim: BatchClaim) -> dict[str, Any]:
    command = claim.command
    action_lock_id = (
        advisory_lock_id(command, Direction.ACTION) if claim.compensates_local_action else None
    )
    return {
        **primary_key(command),
        **attempt_columns(command),
        "number": number,
        "lock_id": advisory_lock_id(command, command.direction),
        "action_lock_id": action_lock_id,
    }


def batch_columns(results: Sequence[tuple[Command, CommandResult | None]]) -> dict[str, str]:
    """The parameters of `record_all_or_fail`."""
    columns = [
        primary_key(command) if result is None else result_columns(command, result)
        for command, result in results
    ]
    return {"results": orjson.dumps(columns).decode()}


def result_columns(command: Command, result: CommandResult) -> dict[str, str]:
    """The columns of a command's result."""
    recorded = {"outcome": result.outcome.value, "reply": result.body.decode()}
    return primary_key(command) | recorded
