"""
What operators do with dead letters: redrive, discard and purge, each recorded in the audit log.

The functions of the database write the audit log, so that each role that may call them leaves a
record.
"""

from collections.abc import Sequence

from saga_engine.postgres.statement import Transaction, text
from saga_engine.store.dead_letter_queries import (
    DEAD_LETTER_COLUMNS,
    StoredDeadLetter,
    to_stored_dead_letter,
)
from saga_engine.store.dead_letters import DeadLetterState


async def lock_open(tx: Transaction, ids: Sequence[int]) -> list[StoredDeadLetter]:
    """
    Lock and read the open dead letters among *ids*, so that no other operator resolves them.

    The correlation id of a reply, or of a command of this engine, is complete again: the message
    can be published.
    """
    return [to_stored_dead_letter(row) for row in await tx.execute(_LOCK_OPEN, {"ids": list(ids)})]


async def mark_redriven(tx: Transaction, ids: Sequence[int], *, operator: str, reason: str) -> int:
    """Mark open dead letters as redriven, and return how many were open."""
    return len(await _resolve(tx, ids, DeadLetterState.REDRIVEN, operator, reason))


async def mark_discarded(
    tx: Transaction, ids: Sequence[int], *, operator: str, reason: str
) -> set[int]:
    """Mark open dead letters as discarded, and return the ids of those that were open."""
    return await _resolve(tx, ids, DeadLetterState.DISCARDED, operator, reason)


async def purge(tx: Transaction, ids: Sequence[int], *, operator: str, reason: str) -> int:
    """Delete dead letters, and return how many there were."""
    arguments = {"ids": list(ids), "operator": operator, "reason": reason}
    deleted: int = (await tx.execute(_PURGE, arguments)).scalar_one()
    return deleted


async def _resolve(
    tx: Transaction, ids: Sequence[int], state: DeadLetterState, operator: str, reason: str
) -> set[int]:
    arguments = {"ids": list(ids), "state": state.value, "operator": operator, "reason": reason}
    return set((await tx.execute(_RESOLVE, arguments)).scalars())


_LOCK_OPEN = text(
    f"SELECT {DEAD_LETTER_COLUMNS}"  # noqa: S608 - a constant
    " FROM saga_engine.lock_dead_letters(CAST(:ids AS bigint[])) AS l"
)

_RESOLVE = text(
    """
    SELECT saga_engine.resolve_dead_letters(CAST(:ids AS bigint[]), CAST(:state AS text),
        CAST(:operator AS text), CAST(:reason AS text))"""
)

_PURGE = text(
    """
    SELECT saga_engine.purge_dead_letters(
        CAST(:ids AS bigint[]), CAST(:operator AS text), CAST(:reason AS text))"""
)
