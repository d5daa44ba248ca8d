"""
Redrive, discard and purge dead letters; each is recorded with the operator and the reason.

A dead letter is locked, published and marked in one transaction, so that two operators do not
publish it twice. A crash before the commit publishes it twice, which the engine and participants
tolerate.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from saga_engine.amqp.headers import BROKER_HEADER_PREFIXES, TRUNCATED_HEADER
from saga_engine.amqp.single_publisher import SinglePublisher
from saga_engine.amqp.tolerant_decoding import UNDECODABLE_HEADER
from saga_engine.protocol.command import new_message_id
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.topology import DEAD_LETTERS, REQUESTS, is_reply_queue, participant_queue
from saga_engine.store import dead_letter_actions, dead_letter_queries
from saga_engine.store.database import Database
from saga_engine.store.dead_letter_queries import StoredDeadLetter

_COPY_HEADERS = ("CC", "BCC")
"""Headers with further routing keys, to which RabbitMQ routes copies."""
REDRIVE_COUNT_HEADER = "x-saga-redrive-count"
MESSAGES_PER_TRANSACTION = 50
"""Dead letters published in one transaction."""
BYTES_PER_TRANSACTION = 8 * 1024 * 1024
"""Bytes of their bodies in one transaction; all are in memory."""
IDS_PER_TRANSACTION = 1000
"""Dead letters marked or deleted in one transaction; their bodies are not read."""

_ALREADY_RESOLVED = "Another operator has redriven or discarded it meanwhile."
_PUBLISH_PROBLEMS = {
    PublishOutcome.UNROUTABLE: "No queue is bound: the queue it came from was deleted or unbound.",
    PublishOutcome.NACKED: "The broker rejected it; its queue may be full. Try again later.",
    PublishOutcome.UNKNOWN: "The broker did not confirm it; it may have arrived. Sending twice"
    " is safe.",
}


class Redriver:
    """Publishes dead letters again, for *operator* with *reason*."""

    def __init__(
        self, database: Database, publisher: SinglePublisher, *, operator: str, reason: str
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._operator = operator
        self._reason = reason

    async def send(self, ids: Sequence[int]) -> dict[int, str]:
        """Publish them; return the problem of each one that could not be published."""
        problems: dict[int, str] = {}
        async with self._database.transaction() as tx:
            batches = await dead_letter_queries.split_by_size(
                tx, ids, max_letters=MESSAGES_PER_TRANSACTION, max_bytes=BYTES_PER_TRANSACTION
            )
        problems |= dict.fromkeys(
            set(ids) - {each for batch in batches for each in batch}, _ALREADY_RESOLVED
        )
        for batch in batches:
            async with self._database.transaction() as tx:
                locked = await dead_letter_actions.lock_open(tx, batch)
                problems |= dict.fromkeys(
                    set(batch) - {each.id for each in locked}, _ALREADY_RESOLVED
                )
                publish_problems = await self._publish(locked)
                problems |= publish_problems
                sent = [each for each in locked if each.id not in publish_problems]
                await dead_letter_actions.mark_redriven(
                    tx, [each.id for each in sent], operator=self._operator, reason=self._reason
                )
        return problems

    async def _publish(self, stored_messages: Sequence[StoredDeadLetter]) -> dict[int, str]:
        """Publish them, grouped by exchange, because a missing exchange closes the channel."""
        problems: dict[int, str] = {}
        by_exchange: dict[str, list[tuple[int, Message]]] = {}
        for each in stored_messages:
            message = rebuild_message(each)
            if isinstance(message, str):
                problems[each.id] = message
            else:
                by_exchange.setdefault(message.exchange, []).append((each.id, message))
        for group in by_exchange.values():
            outcomes = await self._publisher.publish([message for _, message in group])
            for (dead_letter_id, message), outcome in zip(group, outcomes, strict=True):
                if outcome is not PublishOutcome.CONFIRMED:
                    problems[dead_letter_id] = _PUBLISH_PROBLEMS.get(
                        outcome
                    ) or self._publisher.unpublishable_reason(message)
        return problems


async def discard_all(
    database: Database, ids: Sequence[int], *, operator: str, reason: str
) -> dict[int, str]:
    """Mark them as discarded; return the problem of each one that was no longer open."""
    problems: dict[int, str] = {}
    for start in range(0, len(ids), IDS_PER_TRANSACTION):
        batch = ids[start : start + IDS_PER_TRANSACTION]
        async with database.transaction() as tx:
            discarded_ids = await dead_letter_actions.mark_discarded(
                tx, batch, operator=operator, reason=reason
            )
            problems |= dict.fromkeys(set(batch) - discarded_ids, _ALREADY_RESOLVED)
    return problems


async def purge_all(database: Database, ids: Sequence[int], *, operator: str, reason: str) -> int:
    """Delete dead letters, recorded in the audit log; return how many were deleted."""
    deleted = 0
    for start in range(0, len(ids), IDS_PER_TRANSACTION):
        async with database.transaction() as tx:
            batch = ids[start : start + IDS_PER_TRANSACTION]
            deleted += await dead_letter_actions.purge(tx, batch, operator=operator, reason=reason)
    return deleted


def rebuild_message(stored: StoredDeadLetter) -> Message | str:
    """
    Rebuild the message of a dead letter: the same bytes, exchange and routing key.

    Returns:
        The message, or a sentence that says why it cannot be rebuilt.
    """
    dead_letter = stored.message
    if stored.truncated:
        return f"Only {len(dead_letter.body)} of its {dead_letter.body_size} bytes were kept."
    if {UNDECODABLE_HEADER, TRUNCATED_HEADER} & dead_letter.headers.keys():
        return "Not all of its headers were kept."
    exchange, routing_key = dead_letter.exchange, dead_letter.routing_key
    if dead_letter.queue == DEAD_LETTERS:
        # RabbitMQ dead-lettered it in one queue; its exchange might route it to others too.
        exchange, routing_key = "", _dead_lettering_queue(dead_letter.headers)
        if not routing_key:
            return "It did not come from a queue of saga-engine."
    sent_at = dead_letter.properties.get("timestamp")
    return Message(
        exchange=exchange,
        routing_key=routing_key,
        body=dead_letter.body,
        message_id=new_message_id(),
        type=dead_letter.type,
        correlation_id=dead_letter.correlation_id,
        reply_to=dead_letter.properties.get("reply_to", ""),
        headers=_redrive_headers(dead_letter.headers),
        timestamp=datetime.fromisoformat(sent_at) if sent_at else None,
    )


def _dead_lettering_queue(headers: Mapping[str, Any]) -> str:
    """The queue in x-death; a sender can forge that header, so only engine queues count."""
    x_death = headers.get("x-death")
    latest_death = x_death[0] if isinstance(x_death, list) and x_death else None
    queue = latest_death.get("queue") if isinstance(latest_death, dict) else None
    if isinstance(queue, str) and (
        queue == REQUESTS or is_reply_queue(queue) or queue.startswith(participant_queue(""))
    ):
        return queue
    return ""


def _redrive_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        name: value
        for name, value in headers.items()
        if name not in _COPY_HEADERS and not name.startswith(BROKER_HEADER_PREFIXES)
    }
    previous_count = kept.get(REDRIVE_COUNT_HEADER)
    kept[REDRIVE_COUNT_HEADER] = (
        previous_count + 1 if isinstance(previous_count, int) and previous_count < 2**31 else 1
    )
    return kept
