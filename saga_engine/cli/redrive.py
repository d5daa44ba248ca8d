"""
What becomes of dead letters: sent again or discarded, in both cases on record with who and why.

A letter is locked, sent and marked in one transaction, so that two people do not send it twice. A
crash in between sends it twice, which the engine and participants can take.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from saga_engine.amqp.headers import BROKERS, CUT
from saga_engine.amqp.publisher import Publisher
from saga_engine.amqp.tolerant_decoding import UNDECODABLE
from saga_engine.protocol.command import fresh_message_id
from saga_engine.protocol.message import Message, Published
from saga_engine.protocol.topology import DEAD_LETTERS, REPLIES, REQUESTS, participant_queue
from saga_engine.store import dead_letters
from saga_engine.store.database import Database
from saga_engine.store.dead_letters import StoredLetter

_COPIES = ("CC", "BCC")
"""Headers by which RabbitMQ sends a message to other queues as well."""
REDRIVES = "x-saga-redrive-count"
AT_ONCE = 50
"""Letters sent in one transaction."""
BYTES_AT_ONCE = 8 * 1024 * 1024
"""Bytes of their bodies in one transaction: all are in memory."""
IDS_AT_ONCE = 1000
"""Letters marked or deleted in one transaction; their bodies are not read."""

_GONE = "Somebody else has sent it again or discarded it meanwhile."
_WHY = {
    Published.RETURNED: "No queue takes it: the one it came from is gone, or unbound.",
    Published.NACKED: "The broker declined it; its queue may be full. Try again later.",
    Published.UNKNOWN: "The broker did not confirm it; it may have arrived. Sending twice is safe.",
}


class Redrive:
    """Sends dead letters again, by *by* for *reason*."""

    def __init__(self, opened: Database, publisher: Publisher, *, by: str, reason: str) -> None:
        self._opened = opened
        self._publisher = publisher
        self._by = by
        self._reason = reason

    async def send(self, ids: Sequence[int]) -> dict[int, str]:
        """Send them; those that were not, each with the problem in a sentence."""
        failed: dict[int, str] = {}
        async with self._opened.transaction() as tx:
            portions = await dead_letters.portions(tx, ids, most=AT_ONCE, size=BYTES_AT_ONCE)
        failed |= dict.fromkeys(set(ids) - {each for some in portions for each in some}, _GONE)
        for some in portions:
            async with self._opened.transaction() as tx:
                letters = await dead_letters.lock(tx, some)
                failed |= dict.fromkeys(set(some) - {each.id for each in letters}, _GONE)
                problems = await self._publish(letters)
                failed |= problems
                sent = [each for each in letters if each.id not in problems]
                await dead_letters.redriven(
                    tx, [each.id for each in sent], by=self._by, reason=self._reason
                )
        return failed

    async def _publish(self, letters: Sequence[StoredLetter]) -> dict[int, str]:
        """Publish what can be, for each exchange by itself: one that is gone closes the channel."""
        problems: dict[int, str] = {}
        groups: dict[str, list[tuple[int, Message]]] = {}
        for each in letters:
            message = message_of(each)
            if isinstance(message, str):
                problems[each.id] = message
            else:
                groups.setdefault(message.exchange, []).append((each.id, message))
        for group in groups.values():
            outcomes = await self._publisher.publish([message for _, message in group])
            for (number, message), outcome in zip(group, outcomes, strict=True):
                if outcome is not Published.CONFIRMED:
                    problems[number] = _WHY.get(outcome) or self._publisher.refusal(message)
        return problems


async def discard_all(
    opened: Database, ids: Sequence[int], *, by: str, reason: str
) -> dict[int, str]:
    """Mark them as not worth another try; those that were not open any more."""
    failed: dict[int, str] = {}
    for start in range(0, len(ids), IDS_AT_ONCE):
        some = ids[start : start + IDS_AT_ONCE]
        async with opened.transaction() as tx:
            marked = await dead_letters.discard(tx, some, by=by, reason=reason)
            failed |= dict.fromkeys(set(some) - marked, _GONE)
    return failed


async def purge_all(opened: Database, ids: Sequence[int], *, by: str, reason: str) -> int:
    """Delete dead letters for good, on record; how many there were."""
    deleted = 0
    for start in range(0, len(ids), IDS_AT_ONCE):
        async with opened.transaction() as tx:
            some = ids[start : start + IDS_AT_ONCE]
            deleted += await dead_letters.purge(tx, some, by=by, reason=reason)
    return deleted


def message_of(stored: StoredLetter) -> Message | str:
    """
    Make the message of a dead letter again: the same bytes to where it came from.

    Returns:
        A sentence instead, when that cannot be done.
    """
    letter = stored.letter
    if stored.truncated:
        return f"Only {len(letter.body)} of its {letter.body_size} bytes were kept."
    if {UNDECODABLE, CUT} & letter.headers.keys():
        return "Not all of its headers were kept."
    exchange, routing_key = letter.exchange, letter.routing_key
    if letter.queue == DEAD_LETTERS:
        # The broker gave it up in one queue; its exchange would send it to others as well.
        exchange, routing_key = "", _queue_of_death(letter.headers)
        if not routing_key:
            return "It did not come from a queue of saga-engine's."
    sent_at = letter.properties.get("timestamp")
    return Message(
        exchange=exchange,
        routing_key=routing_key,
        body=letter.body,
        message_id=fresh_message_id(),
        type=letter.type,
        correlation_id=letter.correlation_id,
        reply_to=letter.properties.get("reply_to", ""),
        headers=_headers(letter.headers),
        timestamp=datetime.fromisoformat(sent_at) if sent_at else None,
    )


def _queue_of_death(headers: Mapping[str, Any]) -> str:
    """Where RabbitMQ says it died; a sender can write that header too, so only our queues count."""
    deaths = headers.get("x-death")
    newest = deaths[0] if isinstance(deaths, list) and deaths else None
    queue = newest.get("queue") if isinstance(newest, dict) else None
    ours = (REPLIES, REQUESTS)
    if isinstance(queue, str) and (queue in ours or queue.startswith(participant_queue(""))):
        return queue
    return ""


def _headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        name: value
        for name, value in headers.items()
        if name not in _COPIES and not name.startswith(BROKERS)
    }
    before = kept.get(REDRIVES)
    kept[REDRIVES] = before + 1 if isinstance(before, int) and before < 2**31 else 1
    return kept
