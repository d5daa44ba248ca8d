"""Dead letters as the store records them."""

from typing import Any

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.topology import REQUESTS
from saga_engine.store import dead_letter_queries, dead_letters
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.dead_letter_queries import DeadLetterFilter
from saga_engine.store.dead_letters import DeadLetter

WHY = ("--reason", "known bug", "--operator", "ann")
"""The options that a command needs to change a dead letter."""


def make_dead_letter(**changes: Any) -> DeadLetter:
    """A start that is not a request, with these changes."""
    made: dict[str, Any] = {
        "queue": "saga.requests",
        "reason": DeadLetterReason.BAD_REQUEST,
        "detail": "It is not a request.",
        "body": b"{}",
        "body_size": 2,
        "exchange": REQUESTS,
        "routing_key": "start",
        "type": "start",
    }
    return DeadLetter(**(made | changes))


def malformed_reply(
    reason: DeadLetterReason = DeadLetterReason.MALFORMED_JSON, **fields: Any
) -> DeadLetter:
    """A reply that is not JSON, with these changes."""
    return DeadLetter(
        queue="saga.replies",
        reason=reason,
        detail="It is not JSON.",
        body=b"{",
        body_size=1,
        **fields,
    )


async def record_dead_letters(database: Database, *letters: DeadLetter, keep: int = 100) -> list:
    """Record dead letters; return all that are stored, the oldest first."""
    async with database.transaction() as tx:
        await dead_letters.record(tx, letters, keep)
        return (await dead_letter_queries.read_page(tx, limit=100))[::-1]


async def record_reasons(
    tx: SqlAlchemyTransaction, *reasons: DeadLetterReason, size: int = 2
) -> list[int]:
    """Record a dead letter of each reason; return their ids."""
    last = max(await dead_letter_queries.find_ids(tx, DeadLetterFilter(), limit=100_000), default=0)
    body = b"x" * size
    made = [
        DeadLetter(queue="saga.requests", reason=reason, detail="", body=body, body_size=size)
        for reason in reasons
    ]
    await dead_letters.record(tx, made, size)
    return await dead_letter_queries.find_ids(
        tx, DeadLetterFilter(), limit=len(reasons), after_id=last
    )
