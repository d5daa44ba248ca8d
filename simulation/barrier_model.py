"""The barrier's table in the model; see BarrierTable and BatchBarrierTable of the participant."""

from collections.abc import Collection, Sequence
from typing import Any

from saga_engine.participant.barrier import (
    TOMBSTONE,
    BatchClaim,
    CommandInProgress,
    CommandResult,
    RecordedResult,
)
from saga_engine.vocabulary import Command, Direction, Outcome
from simulation.memory_database import MemoryTransaction
from simulation.rows import jsonb

RowKey = tuple[Any, str, str]

_TRANSACTION_ENDED = {
    "outcome": Outcome.FAILED.value,
    "reply": '{"code": "transaction_ended"}',
}


class BarrierModel:
    """A BarrierTable and a BatchBarrierTable in a transaction of the model."""

    def __init__(self, tx: MemoryTransaction) -> None:
        self._tx = tx

    async def claim(self, command: Command) -> bool:
        """Insert the command's row; see BarrierTable."""
        async with self._tx.statement():
            key = _row_key(command, command.direction)
            self._take_advisory_lock(key)
            return await self._tx.insert(
                "barrier", key, {**_row(command, command.direction), **_TRANSACTION_ENDED}
            )

    async def reclaim(self, command: Command) -> bool:
        """Claim the row of a rejected command again; see BarrierTable."""
        async with self._tx.statement():
            key = _row_key(command, command.direction)
            row = await self._tx.lock("barrier", key)
            if row is None or row["outcome"] != Outcome.REJECTED.value:
                return False
            same_key = row["idempotency_key"] == command.idempotency_key
            if same_key or row["attempt"] >= command.attempt:
                return False
            self._tx.put("barrier", key, {**_row(command, command.direction), **_TRANSACTION_ENDED})
            return True

    async def insert_tombstone(self, command: Command) -> bool:
        """Insert the row of the action that a command compensates; see BarrierTable."""
        async with self._tx.statement():
            key = _row_key(command, Direction.ACTION)
            self._take_advisory_lock(key)
            row = await self._tx.lock("barrier", key)
            if row is None:
                row = {**_row(command, Direction.ACTION), "reply": "null"}
            elif row["outcome"] not in (Outcome.REJECTED.value, TOMBSTONE):
                return False
            self._tx.put("barrier", key, {**row, "outcome": TOMBSTONE})
            return True

    async def record_result(self, command: Command, result: CommandResult) -> bool:
        """Record the result of a claimed command; see BarrierTable."""
        async with self._tx.statement():
            key = _row_key(command, command.direction)
            row = await self._tx.lock("barrier", key)
            if row is None:
                return False
            recorded = {"outcome": result.outcome.value, "reply": jsonb(result.body.decode())}
            self._tx.put("barrier", key, {**row, **recorded})
            return True

    async def select_result(self, command: Command) -> RecordedResult | None:
        """Read the result in the command's row; see BarrierTable."""
        async with self._tx.statement():
            row = self._tx.get("barrier", _row_key(command, command.direction))
            return None if row is None else RecordedResult(row["outcome"], row["reply"])

    async def claim_all(self, claims: Sequence[BatchClaim]) -> Collection[int]:
        """Claim the commands that have no row; see BatchBarrierTable."""
        async with self._tx.statement():
            return [number for number, claim in enumerate(claims) if await self._claim_new(claim)]

    async def _claim_new(self, claim: BatchClaim) -> bool:
        command = claim.command
        key = _row_key(command, command.direction)
        try:
            self._take_advisory_lock(key)
            if claim.compensates_local_action:
                action_key = _row_key(command, Direction.ACTION)
                self._take_advisory_lock(action_key)
                action = self._tx.get("barrier", action_key)
                if action is None or action["outcome"] != Outcome.SUCCEEDED.value:
                    return False
        except CommandInProgress:
            return False
        return await self._tx.insert(
            "barrier", key, {**_row(command, command.direction), **_TRANSACTION_ENDED}
        )

    async def record_all(self, results: Sequence[tuple[Command, CommandResult | None]]) -> bool:
        """Record the results of claimed commands; None deletes the row of a command."""
        async with self._tx.statement():
            for command, result in results:
                key = _row_key(command, command.direction)
                row = await self._tx.lock("barrier", key)
                if row is None:
                    return False
                if result is None:
                    self._tx.delete("barrier", key)
                    continue
                recorded = {"outcome": result.outcome.value, "reply": jsonb(result.body.decode())}
                self._tx.put("barrier", key, {**row, **recorded})
            return True

    def _take_advisory_lock(self, key: RowKey) -> None:
        """Lock a command until the transaction ends, unless another one has the lock."""
        if not self._tx.is_lockable("advisory", key):
            raise CommandInProgress
        self._tx.lock_unlocked("advisory", key)


def _row_key(command: Command, direction: Direction) -> RowKey:
    return command.run_id, command.step, direction.value


def _row(command: Command, direction: Direction) -> dict[str, Any]:
    return {
        "run_id": command.run_id,
        "step": command.step,
        "direction": direction.value,
        "idempotency_key": command.idempotency_key,
        "attempt": command.attempt,
    }
