"""
Dead letters: messages that cannot be processed, kept until an operator redrives or discards them.

Recording never fails because of what a sender has sent: text is made storable, and a long body is
cut and marked as cut. `dead_letter_queries` reads dead letters, `dead_letter_actions` resolves
them.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

from saga_engine.postgres.statement import Columns, Transaction, text
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.store.bounded_count import GROUPS_MAX
from saga_engine.store.json_column import dumps, make_storable

_DETAIL_MAX = 2000  # characters: a sentence, and what it quotes
_SENDER_MAX = 255  # characters: RabbitMQ allows no longer user name

QUOTA_RECHECK_SECONDS = 5
"""
Seconds for which a group of dead letters that reached its quota is not counted again. In a flood
each batch would count as many rows as the quota allows. After a purge that many seconds pass before
dead letters of the group are kept again, which an operator does not notice: so this is not a
setting.
"""


class DeadLetterState(StrEnum):
    """What was done with a dead letter."""

    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """
    One message to dead-letter. Every field without another source comes from its sender.

    Args:
        queue: the queue that it came from.
        reason: what is wrong with it. A row that a later version wrote may have a reason that this
            version does not know; it is read as a text.
        detail: the same as a sentence.
        body: at least as much of the body as is kept.
        body_size: the length of the body that was sent, in bytes.
        is_engine_token: this engine has made the correlation id. It is kept without its digest, so
            that a reader of the table cannot answer the command.
        sender: the sender whose quota the message counts for; empty: the user in its properties.
        exempt_from_quota: it is kept although the quota is used up.
    """

    queue: str
    reason: DeadLetterReason | str
    detail: str
    body: bytes
    body_size: int
    run_id: str | None = None
    message_id: str = ""
    correlation_id: str = ""
    type: str = ""
    exchange: str = ""
    routing_key: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    is_engine_token: bool = False
    sender: str = field(default="", compare=False)
    exempt_from_quota: bool = field(default=False, compare=False)


async def record(
    tx: Transaction,
    letters: Sequence[DeadLetter],
    max_body_bytes: int,
    quota: int = 100_000,
) -> None:
    """
    Record dead letters, with at most *max_body_bytes* of each body.

    At most *quota* dead letters of one queue, reason and sender are open. Those beyond are counted
    and not kept, unless they are exempt. A group that reached its quota is counted again after
    `QUOTA_RECHECK_SECONDS`.
    """
    if not letters:
        return
    columns = letter_columns(letters, max_body_bytes)
    inserted = await tx.execute(_RECORD, {**columns, "quota": quota})
    if inserted.rowcount < len(letters):
        await tx.execute(_COUNT_DROPPED, dropped_columns(letters, set(inserted.scalars())))


def letter_columns(letters: Sequence[DeadLetter], max_body_bytes: int) -> Columns:
    """Write dead letters as rows, in order; the table has no column `exempt_from_quota`."""
    columns: dict[str, list[Any]] = {
        name: [make_storable(getattr(letter, name)) for letter in letters] for name in _TEXT_FIELDS
    }
    return columns | {
        "detail": [make_storable(letter.detail)[:_DETAIL_MAX] for letter in letters],
        "run_id": [_uuid(letter.run_id) for letter in letters],
        "properties": [dumps(make_storable(letter.properties)) for letter in letters],
        "headers": [dumps(make_storable(letter.headers)) for letter in letters],
        "body": [letter.body[:max_body_bytes] for letter in letters],
        "body_size": [letter.body_size for letter in letters],
        "truncated": [len(letter.body[:max_body_bytes]) < letter.body_size for letter in letters],
        "fingerprint": [_fingerprint(letter) for letter in letters],
        "is_engine_token": [letter.is_engine_token for letter in letters],
        "sender": [make_storable(_sender(letter)) for letter in letters],
        "exempt_from_quota": [letter.exempt_from_quota for letter in letters],
    }


def dropped_columns(letters: Sequence[DeadLetter], stored_positions: Collection[int]) -> Columns:
    """Write how many dead letters were not kept as rows; positions count from 1."""
    dropped = Counter(
        (make_storable(letter.queue), make_storable(letter.reason), make_storable(_sender(letter)))
        for position, letter in enumerate(letters, 1)
        if position not in stored_positions
    )
    groups = sorted(dropped)  # all transactions lock the counters in one order
    return {
        "queue": [queue for queue, _, _ in groups],
        "reason": [reason for _, reason, _ in groups],
        "sender": [sender for _, _, sender in groups],
        "dropped_count": [dropped[group] for group in groups],
    }


async def read_dropped(tx: Transaction) -> dict[tuple[str, str, str], int]:
    """Read how many dead letters were not kept because of quotas, by queue, reason and sender."""
    rows = await tx.execute(_READ_DROPPED)
    return {(queue, reason, sender): number for queue, reason, sender, number in rows}


def _sender(letter: DeadLetter) -> str:
    """The PostgreSQL role or the RabbitMQ user that it came from; empty when none is known."""
    if letter.sender:
        return letter.sender[:_SENDER_MAX]
    user = str(letter.properties.get("user_id", ""))
    return (f"user:{user}" if user.startswith(("role:", "user:")) else user)[:_SENDER_MAX]


def _uuid(value: str | None) -> str | None:
    try:
        return value and str(UUID(value))
    except ValueError:
        return None


def _fingerprint(letter: DeadLetter) -> str:
    """The same for all dead letters of one reason, queue and type."""
    group_key = make_storable(f"{letter.reason}\n{letter.queue}\n{letter.type}")
    return sha256(group_key.encode()).hexdigest()[:16]


_TEXT_FIELDS = (
    "queue",
    "reason",
    "message_id",
    "correlation_id",
    "type",
    "exchange",
    "routing_key",
)

# Each statement counts the open dead letters of a group, by their index, up to the quota. A count
# that reached the quota is valid for QUOTA_RECHECK_SECONDS, so that a flood is not counted for each
# batch. The time of the transaction's start counts, so that _COUNT_DROPPED finds out whether this
# statement has counted.
_RECORD = text(
    f"""
    WITH input_rows AS MATERIALIZED (
        SELECT u.*, row_number() OVER (
            PARTITION BY u.queue, u.reason, u.sender ORDER BY u.ordinal) AS position_in_group
        FROM unnest(CAST(:queue AS text[]), CAST(:reason AS text[]), CAST(:message_id AS text[]),
            CAST(:correlation_id AS text[]), CAST(:type AS text[]), CAST(:exchange AS text[]),
            CAST(:routing_key AS text[]), CAST(:detail AS text[]), CAST(:run_id AS uuid[]),
            CAST(:properties AS text[]), CAST(:headers AS text[]), CAST(:body AS bytea[]),
            CAST(:body_size AS bigint[]), CAST(:truncated AS boolean[]),
            CAST(:fingerprint AS text[]), CAST(:sender AS text[]),
            CAST(:is_engine_token AS boolean[]), CAST(:exempt_from_quota AS boolean[]))
            WITH ORDINALITY
            AS u(queue, reason, message_id, correlation_id, type, exchange, routing_key, detail,
                run_id, properties, headers, body, body_size, truncated, fingerprint, sender,
                is_engine_token, exempt_from_quota, ordinal)
    ), quota_groups AS MATERIALIZED (
        SELECT g.queue, g.reason, g.sender, CASE WHEN EXISTS (
            SELECT FROM saga_engine.dead_letter_dropped AS f
            WHERE f.queue = g.queue AND f.reason = g.reason AND f.sender = g.sender
                AND f.quota_reached_at > now() - interval '{QUOTA_RECHECK_SECONDS} seconds') THEN
                CAST(:quota AS bigint)
        ELSE (
            SELECT count(*) FROM (
                SELECT FROM saga_engine.dead_letter AS l
                WHERE l.state = 'open' AND l.queue = g.queue AND l.reason = g.reason
                    AND l.sender = g.sender LIMIT :quota) AS limited) END AS open_count
        FROM input_rows AS g GROUP BY g.queue, g.reason, g.sender
    ), inserted AS (
        INSERT INTO saga_engine.dead_letter (queue, reason, message_id, correlation_id, type,
            exchange, routing_key, detail, run_id, properties, headers, body, body_size, truncated,
            fingerprint, sender, is_engine_token)
        SELECT g.queue, g.reason, g.message_id, g.correlation_id, g.type, g.exchange,
            g.routing_key, g.detail, g.run_id, g.properties::jsonb, g.headers::jsonb, g.body,
            g.body_size, g.truncated, g.fingerprint, g.sender, g.is_engine_token
        FROM input_rows AS g JOIN quota_groups AS k USING (queue, reason, sender)
        WHERE g.exempt_from_quota OR g.position_in_group + k.open_count <= :quota ORDER BY g.ordinal
    )
    SELECT g.ordinal::integer
    FROM input_rows AS g JOIN quota_groups AS k USING (queue, reason, sender)
    WHERE g.exempt_from_quota OR g.position_in_group + k.open_count <= :quota"""  # noqa: S608 - a constant
)

_COUNT_DROPPED = text(
    f"""
    INSERT INTO saga_engine.dead_letter_dropped AS d (queue, reason, sender, dropped_count)
    SELECT u.queue, u.reason, u.sender, u.dropped_count
    FROM unnest(CAST(:queue AS text[]), CAST(:reason AS text[]), CAST(:sender AS text[]),
        CAST(:dropped_count AS bigint[])) AS u(queue, reason, sender, dropped_count)
    ON CONFLICT (queue, reason, sender) DO UPDATE
    SET dropped_count = d.dropped_count + excluded.dropped_count,
        last_dropped_at = clock_timestamp(),
        quota_reached_at = CASE
            WHEN d.quota_reached_at > now() - interval '{QUOTA_RECHECK_SECONDS} seconds'
            THEN d.quota_reached_at ELSE now() END"""  # noqa: S608 - a constant
)

_READ_DROPPED = text(
    f"""
    SELECT queue, reason, sender, dropped_count FROM saga_engine.dead_letter_dropped
    ORDER BY dropped_count DESC LIMIT {GROUPS_MAX}"""  # noqa: S608 - a constant
)
