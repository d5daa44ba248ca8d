"""
Messages that cannot be handled, kept with their bytes until a person redrives or discards them.

Recording never fails because of what a sender sent: text is made storable, a long body is cut and
marked as cut.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, literal, select, text

from saga_engine.store.bounded_count import GROUPS_MAX, BoundedCount, to_bounded_count
from saga_engine.store.database import SqlAlchemyTransaction
from saga_engine.store.json_column import dumps, make_storable
from saga_engine.store.tables import dead_letter

_DETAIL_MAX = 2000  # characters: a sentence, and what it quotes

QUOTA_RECHECK_SECONDS = 5
"""
Seconds for which a kind of dead letter that was found full is not counted again. In a flood each
batch would count as many rows as the quota allows. After a purge, as long passes before letters of
that kind are kept again, which a person who purges does not notice: so it is not a setting.
"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """
    One message to set aside. Every field but the first three comes from its sender.

    `reason` is one of our own words, `detail` a sentence. `body_size` is what the sender sent; the
    body may be shorter. `signed`: its correlation id was made by this engine, and is kept without
    the digest that makes it worth something. `sender` is whose quota it counts for; empty: that of
    the user in its properties. `owed`: it is kept beyond the quota.
    """

    queue: str
    reason: str
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


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """One dead letter on record; `state` is open, redriven or discarded."""

    id: int
    received_at: datetime
    state: str
    truncated: bool
    fingerprint: str
    message: DeadLetter
    resolved_at: datetime | None
    resolved_by: str | None
    resolved_reason: str | None


@dataclass(frozen=True, slots=True)
class DeadLetterGroup:
    """Open dead letters of one queue, reason and type."""

    queue: str
    reason: str
    type: str
    count: int
    first_received_at: datetime
    last_received_at: datetime
    newest_id: int


async def record(
    tx: SqlAlchemyTransaction,
    letters: Sequence[DeadLetter],
    max_body_bytes: int,
    quota: int = 100_000,
) -> None:
    """
    Record *letters*, with at most *keep* bytes of each body.

    Of those that came from one queue, for one reason and from one sender *quota* are open at most;
    what comes beyond that is counted and not kept, unless it is owed. A kind that was found full is
    counted again after `FULL_FOR`.
    """
    if not letters:
        return
    arguments: dict[str, list[Any]] = {
        name: [make_storable(getattr(letter, name)) for letter in letters] for name in _TEXT_FIELDS
    }
    arguments |= {
        "details": [make_storable(letter.detail)[:_DETAIL_MAX] for letter in letters],
        "run_ids": [_uuid(letter.run_id) for letter in letters],
        "properties": [dumps(make_storable(letter.properties)) for letter in letters],
        "headers": [dumps(make_storable(letter.headers)) for letter in letters],
        "bodies": [letter.body[:max_body_bytes] for letter in letters],
        "sizes": [letter.body_size for letter in letters],
        "truncated": [len(letter.body[:max_body_bytes]) < letter.body_size for letter in letters],
        "fingerprints": [_fingerprint(letter) for letter in letters],
        "is_engine_token": [letter.is_engine_token for letter in letters],
        "senders": [make_storable(_sender(letter)) for letter in letters],
        "exempt_from_quota": [letter.exempt_from_quota for letter in letters],
    }
    inserted = await tx.execute(_RECORD, {**arguments, "quota": quota})
    if inserted.rowcount < len(letters):
        await _count_dropped(tx, letters, set(inserted.scalars()))


async def _count_dropped(
    tx: SqlAlchemyTransaction, letters: Sequence[DeadLetter], stored_positions: Collection[int]
) -> None:
    """Count the letters that were not kept; *places* are those of the others, from 1."""
    dropped = Counter(
        (make_storable(letter.queue), make_storable(letter.reason), make_storable(_sender(letter)))
        for position, letter in enumerate(letters, 1)
        if position not in stored_positions
    )
    ordered = sorted(dropped)  # so that two transactions wait for each other in one order
    arguments = {
        "queues": [queue for queue, _, _ in ordered],
        "reasons": [reason for _, reason, _ in ordered],
        "senders": [sender for _, _, sender in ordered],
        "numbers": [dropped[each] for each in ordered],
    }
    await tx.execute(_COUNT_DROPPED, arguments)


async def read_dropped(tx: SqlAlchemyTransaction) -> dict[tuple[str, str, str], int]:
    """Read how many letters were not kept, by queue, reason and sender: those beyond quotas."""
    rows = await tx.execute(_READ_DROPPED)
    return {(queue, reason, sender): number for queue, reason, sender, number in rows}


async def read_page(
    tx: SqlAlchemyTransaction,
    *,
    limit: int,
    state: str | None = "open",
    queue: str | None = None,
    reason: str | None = None,
    before_id: int | None = None,
) -> list[StoredDeadLetter]:
    """Read dead letters, the newest first; `before` is the last id of the page before."""
    query = _select_where(state, queue, reason).order_by(dead_letter.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(dead_letter.c.id < before_id)
    return [_stored_dead_letter(row) for row in await tx.execute(query)]


async def count(
    tx: SqlAlchemyTransaction,
    count_limit: int,
    *,
    state: str | None = "open",
    queue: str | None = None,
    reason: str | None = None,
) -> BoundedCount:
    """Count dead letters, up to *most*."""
    limited = (
        _select_where(state, queue, reason)
        .with_only_columns(literal(1))
        .limit(count_limit + 1)
        .subquery()
    )
    result = await tx.execute(select(func.count()).select_from(limited))
    return to_bounded_count(result.scalar_one(), count_limit)


def _select_where(state: str | None, queue: str | None, reason: str | None) -> Select[Any]:
    query = _SELECT
    filters = {"state": state, "queue": queue, "reason": reason}
    for name, value in filters.items():
        if value is not None:
            uses_open_index = name == "state" and value == "open"
            query = query.where(_IS_OPEN if uses_open_index else dead_letter.c[name] == value)
    return query


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Dead letters that have something in common; None: it does not matter."""

    state: str | None = None
    queue: str | None = None
    reason: str | None = None
    excluded_reason: str | None = None
    min_age_days: int | None = None


async def find_ids(
    tx: SqlAlchemyTransaction, letter_filter: DeadLetterFilter, *, limit: int, after_id: int = 0
) -> list[int]:
    """
    Find dead letters by what they have in common, the oldest first, without their bodies.

    Args:
        alike: `unless` is a reason that is left out, `days` how old they are at least.
        after: the last id of the page before.
    """
    query = select(dead_letter.c.id).where(
        dead_letter.c.id > after_id, *_filter_conditions(letter_filter)
    )
    found = await tx.execute(query.order_by(dead_letter.c.id).limit(limit))
    return list(found.scalars())


async def split_by_size(
    tx: SqlAlchemyTransaction, ids: Sequence[int], *, max_letters: int, max_bytes: int
) -> list[list[int]]:
    """
    Divide dead letters so that a portion can be held in memory.

    Args:
        most: letters in a portion at most.
        size: bytes of their bodies in a portion at most; a larger one is alone.
    """
    found = await tx.execute(_BODY_SIZES, {"ids": sorted(ids)})
    chunks: list[list[int]] = []
    chunk_bytes = 0
    for letter_id, body_bytes in found:
        if not chunks or len(chunks[-1]) >= max_letters or chunk_bytes + body_bytes > max_bytes:
            chunks.append([])
            chunk_bytes = 0
        chunks[-1].append(letter_id)
        chunk_bytes += body_bytes
    return chunks


async def find(tx: SqlAlchemyTransaction, letter_id: int) -> StoredDeadLetter | None:
    """Read one; None when there is none of that id."""
    row = (await tx.execute(_SELECT.where(dead_letter.c.id == letter_id))).one_or_none()
    return None if row is None else _stored_dead_letter(row)


async def groups(tx: SqlAlchemyTransaction) -> list[DeadLetterGroup]:
    """Count the open ones by queue, reason and type, the largest group first."""
    columns = (dead_letter.c.queue, dead_letter.c.reason, dead_letter.c.type)
    counted = (
        select(
            *columns,
            func.count().label("count"),
            func.min(dead_letter.c.received_at),
            func.max(dead_letter.c.received_at),
            func.max(dead_letter.c.id),
        )
        .where(_IS_OPEN)
        .group_by(dead_letter.c.fingerprint, *columns)
        .order_by(text("count DESC"), *columns)
    )
    return [DeadLetterGroup(*row) for row in await tx.execute(counted)]


async def lock_open(tx: SqlAlchemyTransaction, ids: Sequence[int]) -> list[StoredDeadLetter]:
    """
    Lock and read the open ones among *ids*, so that nobody else redrives or discards them.

    The correlation id of a reply or a command of ours is whole again, as it can be sent.
    """
    return [_stored_dead_letter(row) for row in await tx.execute(_LOCK_OPEN, {"ids": list(ids)})]


async def mark_redriven(
    tx: SqlAlchemyTransaction, ids: Sequence[int], *, operator: str, reason: str
) -> int:
    """Mark open dead letters as sent again, on record; how many there were."""
    return len(await _resolve(tx, ids, "redriven", operator, reason))


async def mark_discarded(
    tx: SqlAlchemyTransaction, ids: Sequence[int], *, operator: str, reason: str
) -> set[int]:
    """Mark open dead letters as not worth another try, on record; those that were open."""
    return await _resolve(tx, ids, "discarded", operator, reason)


async def purge(
    tx: SqlAlchemyTransaction, ids: Sequence[int], *, operator: str, reason: str
) -> int:
    """Delete dead letters for good, on record; how many there were."""
    arguments = {"ids": list(ids), "operator": operator, "reason": reason}
    deleted: int = (await tx.execute(_PURGE, arguments)).scalar_one()
    return deleted


async def _resolve(
    tx: SqlAlchemyTransaction, ids: Sequence[int], state: str, operator: str, reason: str
) -> set[int]:
    arguments = {"ids": list(ids), "state": state, "operator": operator, "reason": reason}
    return set((await tx.execute(_RESOLVE, arguments)).scalars())


def _filter_conditions(letter_filter: DeadLetterFilter) -> list[Any]:
    equal_to = {"queue": letter_filter.queue, "reason": letter_filter.reason}
    conditions: list[Any] = [dead_letter.c[name] == each for name, each in equal_to.items() if each]
    if letter_filter.state == "open":
        conditions.append(_IS_OPEN)
    elif letter_filter.state is not None:
        conditions.append(dead_letter.c.state == letter_filter.state)
    if letter_filter.excluded_reason is not None:
        conditions.append(dead_letter.c.reason != letter_filter.excluded_reason)
    if letter_filter.min_age_days is not None:
        conditions.append(_OLDER_THAN_DAYS.bindparams(days=letter_filter.min_age_days))
    return conditions


def _stored_dead_letter(row: Any) -> StoredDeadLetter:
    (
        letter_id,
        received_at,
        state,
        truncated,
        fingerprint,
        resolved_at,
        resolved_by,
        resolved_reason,
        *columns,
    ) = row
    message = DeadLetter(*columns)
    return StoredDeadLetter(
        letter_id,
        received_at,
        state,
        truncated,
        fingerprint,
        message,
        resolved_at,
        resolved_by,
        resolved_reason,
    )


def _sender(letter: DeadLetter) -> str:
    """The role that recorded it, or who sent it by RabbitMQ's word; empty where it names none."""
    if letter.sender:
        return letter.sender[:255]
    user = str(letter.properties.get("user_id", ""))
    return (f"user:{user}" if user.startswith(("role:", "user:")) else user)[:255]


def _uuid(value: str | None) -> str | None:
    try:
        return value and str(UUID(value))
    except ValueError:
        return None


def _fingerprint(letter: DeadLetter) -> str:
    """What makes letters alike for whoever looks through them."""
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
_IS_OPEN = dead_letter.c.state == text("'open'")  # literal, or the partial index cannot be used
_SELECT = select(
    *(dead_letter.c.id, dead_letter.c.received_at, dead_letter.c.state, dead_letter.c.truncated),
    *(dead_letter.c.fingerprint, dead_letter.c.resolved_at),
    *(dead_letter.c.resolved_by, dead_letter.c.resolved_reason),
    *(dead_letter.c.queue, dead_letter.c.reason, dead_letter.c.detail, dead_letter.c.body),
    *(dead_letter.c.body_size, dead_letter.c.run_id, dead_letter.c.message_id),
    *(dead_letter.c.correlation_id, dead_letter.c.type, dead_letter.c.exchange),
    *(dead_letter.c.routing_key, dead_letter.c.properties, dead_letter.c.headers),
    dead_letter.c.is_engine_token,
)

_LOCK_OPEN = text(
    f"SELECT {', '.join(column.name for column in _SELECT.selected_columns)}"  # noqa: S608 - names
    " FROM saga_engine.lock_dead_letters(CAST(:ids AS bigint[]))"
)

_RESOLVE = text(
    """
    SELECT saga_engine.resolve_dead_letters(
        CAST(:ids AS bigint[]), CAST(:state AS text), CAST(:operator AS text),
            CAST(:reason AS text))"""
)

_PURGE = text(
    """
    SELECT saga_engine.purge_dead_letters(
        CAST(:ids AS bigint[]), CAST(:operator AS text), CAST(:reason AS text))"""
)

_OLDER_THAN_DAYS = text(
    "dead_letter.received_at < clock_timestamp() - make_interval(days => CAST(:days AS integer))"
)

_BODY_SIZES = text(
    """
    SELECT id, octet_length(body) FROM saga_engine.dead_letter
    WHERE id = ANY (CAST(:ids AS bigint[])) ORDER BY id"""
)

# Each statement looks at as many open letters of a kind as the quota allows, by their index; in a
# flood the answer of the last one that looked holds for FULL_FOR seconds. It is the time at which
# the transaction began that counts, so that _DROPPED knows whether this statement has looked.
_RECORD = text(
    f"""
    WITH input_rows AS MATERIALIZED (
        SELECT u.*, row_number() OVER (
            PARTITION BY u.queue, u.reason, u.sender ORDER BY u.ordinal) AS position_in_group
        FROM unnest(CAST(:queue AS text[]), CAST(:reason AS text[]), CAST(:message_id AS text[]),
            CAST(:correlation_id AS text[]), CAST(:type AS text[]), CAST(:exchange AS text[]),
            CAST(:routing_key AS text[]), CAST(:details AS text[]), CAST(:run_ids AS uuid[]),
            CAST(:properties AS text[]), CAST(:headers AS text[]), CAST(:bodies AS bytea[]),
            CAST(:sizes AS bigint[]), CAST(:truncated AS boolean[]),
            CAST(:fingerprints AS text[]), CAST(:senders AS text[]),
                CAST(:is_engine_token AS boolean[]),
            CAST(:exempt_from_quota AS boolean[])) WITH ORDINALITY
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
    SELECT g.ordinal::integer FROM input_rows AS g JOIN quota_groups AS k
        USING (queue, reason, sender)
    WHERE g.exempt_from_quota OR g.position_in_group + k.open_count <= :quota"""  # noqa: S608 - a constant
)

_COUNT_DROPPED = text(
    f"""
    INSERT INTO saga_engine.dead_letter_dropped AS d (queue, reason, sender, dropped_count)
    SELECT u.queue, u.reason, u.sender, u.number
    FROM unnest(CAST(:queues AS text[]), CAST(:reasons AS text[]), CAST(:senders AS text[]),
        CAST(:numbers AS bigint[])) AS u(queue, reason, sender, number)
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
