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

from saga_engine.store.bounded_count import GROUPS, Total, total_of
from saga_engine.store.database import Transaction
from saga_engine.store.json_column import dumps, storable
from saga_engine.store.tables import dead_letter

_DETAIL = 2000  # characters: a sentence, and what it quotes

FULL_FOR = 5
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
    signed: bool = False
    sender: str = field(default="", compare=False)
    owed: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """One dead letter on record; `state` is open, redriven or discarded."""

    id: int
    received_at: datetime
    state: str
    truncated: bool
    fingerprint: str
    letter: DeadLetter
    resolved_at: datetime | None
    resolved_by: str | None
    resolved_reason: str | None


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Open dead letters of one queue, reason and type."""

    queue: str
    reason: str
    type: str
    count: int
    first_at: datetime
    last_at: datetime
    newest_id: int


async def record(
    tx: Transaction, letters: Sequence[DeadLetter], keep: int, quota: int = 100_000
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
        name: [storable(getattr(letter, name)) for letter in letters] for name in _TEXTS
    }
    arguments |= {
        "details": [storable(letter.detail)[:_DETAIL] for letter in letters],
        "run_ids": [_uuid(letter.run_id) for letter in letters],
        "properties": [dumps(storable(letter.properties)) for letter in letters],
        "headers": [dumps(storable(letter.headers)) for letter in letters],
        "bodies": [letter.body[:keep] for letter in letters],
        "sizes": [letter.body_size for letter in letters],
        "truncated": [len(letter.body[:keep]) < letter.body_size for letter in letters],
        "fingerprints": [_fingerprint(letter) for letter in letters],
        "signed": [letter.signed for letter in letters],
        "senders": [storable(_sender(letter)) for letter in letters],
        "owed": [letter.owed for letter in letters],
    }
    kept = await tx.execute(_RECORD, {**arguments, "quota": quota})
    if kept.rowcount < len(letters):
        await _count_dropped(tx, letters, set(kept.scalars()))


async def _count_dropped(
    tx: Transaction, letters: Sequence[DeadLetter], places: Collection[int]
) -> None:
    """Count the letters that were not kept; *places* are those of the others, from 1."""
    dropped = Counter(
        (storable(letter.queue), storable(letter.reason), storable(_sender(letter)))
        for place, letter in enumerate(letters, 1)
        if place not in places
    )
    ordered = sorted(dropped)  # so that two transactions wait for each other in one order
    arguments = {
        "queues": [queue for queue, _, _ in ordered],
        "reasons": [reason for _, reason, _ in ordered],
        "senders": [sender for _, _, sender in ordered],
        "numbers": [dropped[each] for each in ordered],
    }
    await tx.execute(_DROPPED, arguments)


async def dropped(tx: Transaction) -> dict[tuple[str, str, str], int]:
    """Read how many letters were not kept, by queue, reason and sender: those beyond quotas."""
    rows = await tx.execute(_READ_DROPPED)
    return {(queue, reason, sender): number for queue, reason, sender, number in rows}


async def listing(
    tx: Transaction,
    *,
    limit: int,
    state: str | None = "open",
    queue: str | None = None,
    reason: str | None = None,
    before: int | None = None,
) -> list[StoredLetter]:
    """Read dead letters, the newest first; `before` is the last id of the page before."""
    query = _chosen(state, queue, reason).order_by(dead_letter.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(dead_letter.c.id < before)
    return [_letter(row) for row in await tx.execute(query)]


async def count(
    tx: Transaction,
    most: int,
    *,
    state: str | None = "open",
    queue: str | None = None,
    reason: str | None = None,
) -> Total:
    """Count dead letters, up to *most*."""
    some = _chosen(state, queue, reason).with_only_columns(literal(1)).limit(most + 1).subquery()
    counted = await tx.execute(select(func.count()).select_from(some))
    return total_of(counted.scalar_one(), most)


def _chosen(state: str | None, queue: str | None, reason: str | None) -> Select[Any]:
    query = _SELECT
    wanted = {"state": state, "queue": queue, "reason": reason}
    for name, value in wanted.items():
        if value is not None:
            mine = name == "state" and value == "open"
            query = query.where(_OPEN if mine else dead_letter.c[name] == value)
    return query


@dataclass(frozen=True, slots=True)
class Alike:
    """Dead letters that have something in common; None: it does not matter."""

    state: str | None = None
    queue: str | None = None
    reason: str | None = None
    unless: str | None = None
    days: int | None = None


async def ids(tx: Transaction, alike: Alike, *, limit: int, after: int = 0) -> list[int]:
    """
    Find dead letters by what they have in common, the oldest first, without their bodies.

    Args:
        alike: `unless` is a reason that is left out, `days` how old they are at least.
        after: the last id of the page before.
    """
    query = select(dead_letter.c.id).where(dead_letter.c.id > after, *_alike(alike))
    found = await tx.execute(query.order_by(dead_letter.c.id).limit(limit))
    return list(found.scalars())


async def portions(
    tx: Transaction, numbers: Sequence[int], *, most: int, size: int
) -> list[list[int]]:
    """
    Divide dead letters so that a portion can be held in memory.

    Args:
        most: letters in a portion at most.
        size: bytes of their bodies in a portion at most; a larger one is alone.
    """
    found = await tx.execute(_SIZES, {"ids": sorted(numbers)})
    made: list[list[int]] = []
    held = 0
    for number, bytes_kept in found:
        if not made or len(made[-1]) >= most or held + bytes_kept > size:
            made.append([])
            held = 0
        made[-1].append(number)
        held += bytes_kept
    return made


async def find(tx: Transaction, letter_id: int) -> StoredLetter | None:
    """Read one; None when there is none of that id."""
    row = (await tx.execute(_SELECT.where(dead_letter.c.id == letter_id))).one_or_none()
    return None if row is None else _letter(row)


async def groups(tx: Transaction) -> list[LetterGroup]:
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
        .where(_OPEN)
        .group_by(dead_letter.c.fingerprint, *columns)
        .order_by(text("count DESC"), *columns)
    )
    return [LetterGroup(*row) for row in await tx.execute(counted)]


async def lock(tx: Transaction, ids: Sequence[int]) -> list[StoredLetter]:
    """
    Lock and read the open ones among *ids*, so that nobody else redrives or discards them.

    The correlation id of a reply or a command of ours is whole again, as it can be sent.
    """
    return [_letter(row) for row in await tx.execute(_LOCK, {"ids": list(ids)})]


async def redriven(tx: Transaction, ids: Sequence[int], *, by: str, reason: str) -> int:
    """Mark open dead letters as sent again, on record; how many there were."""
    return len(await _resolve(tx, ids, "redriven", by, reason))


async def discard(tx: Transaction, ids: Sequence[int], *, by: str, reason: str) -> set[int]:
    """Mark open dead letters as not worth another try, on record; those that were open."""
    return await _resolve(tx, ids, "discarded", by, reason)


async def purge(tx: Transaction, ids: Sequence[int], *, by: str, reason: str) -> int:
    """Delete dead letters for good, on record; how many there were."""
    arguments = {"ids": list(ids), "by": by, "reason": reason}
    number: int = (await tx.execute(_PURGE, arguments)).scalar_one()
    return number


async def _resolve(
    tx: Transaction, ids: Sequence[int], state: str, by: str, reason: str
) -> set[int]:
    arguments = {"ids": list(ids), "state": state, "by": by, "reason": reason}
    return set((await tx.execute(_SETTLE, arguments)).scalars())


def _alike(alike: Alike) -> list[Any]:
    wanted = {"queue": alike.queue, "reason": alike.reason}
    rules: list[Any] = [dead_letter.c[name] == each for name, each in wanted.items() if each]
    if alike.state == "open":
        rules.append(_OPEN)
    elif alike.state is not None:
        rules.append(dead_letter.c.state == alike.state)
    if alike.unless is not None:
        rules.append(dead_letter.c.reason != alike.unless)
    if alike.days is not None:
        rules.append(_OLD.bindparams(days=alike.days))
    return rules


def _letter(row: Any) -> StoredLetter:
    number, received_at, state, truncated, fingerprint, at, by, why, *columns = row
    letter = DeadLetter(*columns)
    return StoredLetter(number, received_at, state, truncated, fingerprint, letter, at, by, why)


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
    alike = storable(f"{letter.reason}\n{letter.queue}\n{letter.type}")
    return sha256(alike.encode()).hexdigest()[:16]


_TEXTS = ("queue", "reason", "message_id", "correlation_id", "type", "exchange", "routing_key")
_OPEN = dead_letter.c.state == text("'open'")  # literal, or the partial index cannot be used
_SELECT = select(
    *(dead_letter.c.id, dead_letter.c.received_at, dead_letter.c.state, dead_letter.c.truncated),
    *(dead_letter.c.fingerprint, dead_letter.c.resolved_at),
    *(dead_letter.c.resolved_by, dead_letter.c.resolved_reason),
    *(dead_letter.c.queue, dead_letter.c.reason, dead_letter.c.detail, dead_letter.c.body),
    *(dead_letter.c.body_size, dead_letter.c.run_id, dead_letter.c.message_id),
    *(dead_letter.c.correlation_id, dead_letter.c.type, dead_letter.c.exchange),
    *(dead_letter.c.routing_key, dead_letter.c.properties, dead_letter.c.headers),
    dead_letter.c.signed,
)

_LOCK = text(
    f"SELECT {', '.join(column.name for column in _SELECT.selected_columns)}"  # noqa: S608 - names
    " FROM saga_engine.lock_dead_letters(CAST(:ids AS bigint[]))"
)

_SETTLE = text(
    """
    SELECT saga_engine.settle_dead_letters(
        CAST(:ids AS bigint[]), CAST(:state AS text), CAST(:by AS text), CAST(:reason AS text))"""
)

_PURGE = text(
    """
    SELECT saga_engine.purge_dead_letters(
        CAST(:ids AS bigint[]), CAST(:by AS text), CAST(:reason AS text))"""
)

_OLD = text(
    "dead_letter.received_at < clock_timestamp() - make_interval(days => CAST(:days AS integer))"
)

_SIZES = text(
    """
    SELECT id, octet_length(body) FROM saga_engine.dead_letter
    WHERE id = ANY (CAST(:ids AS bigint[])) ORDER BY id"""
)

# Each statement looks at as many open letters of a kind as the quota allows, by their index; in a
# flood the answer of the last one that looked holds for FULL_FOR seconds. It is the time at which
# the transaction began that counts, so that _DROPPED knows whether this statement has looked.
_RECORD = text(
    f"""
    WITH given AS MATERIALIZED (
        SELECT u.*, row_number() OVER (
            PARTITION BY u.queue, u.reason, u.sender ORDER BY u.place) AS turn
        FROM unnest(CAST(:queue AS text[]), CAST(:reason AS text[]), CAST(:message_id AS text[]),
            CAST(:correlation_id AS text[]), CAST(:type AS text[]), CAST(:exchange AS text[]),
            CAST(:routing_key AS text[]), CAST(:details AS text[]), CAST(:run_ids AS uuid[]),
            CAST(:properties AS text[]), CAST(:headers AS text[]), CAST(:bodies AS bytea[]),
            CAST(:sizes AS bigint[]), CAST(:truncated AS boolean[]),
            CAST(:fingerprints AS text[]), CAST(:senders AS text[]), CAST(:signed AS boolean[]),
            CAST(:owed AS boolean[])) WITH ORDINALITY
            AS u(queue, reason, message_id, correlation_id, type, exchange, routing_key, detail,
                run_id, properties, headers, body, body_size, truncated, fingerprint, sender,
                signed, owed, place)
    ), kinds AS MATERIALIZED (
        SELECT g.queue, g.reason, g.sender, CASE WHEN EXISTS (
            SELECT FROM saga_engine.dead_letter_dropped AS f
            WHERE f.queue = g.queue AND f.reason = g.reason AND f.sender = g.sender
                AND f.full_at > now() - interval '{FULL_FOR} seconds') THEN CAST(:quota AS bigint)
        ELSE (
            SELECT count(*) FROM (
                SELECT FROM saga_engine.dead_letter AS l
                WHERE l.state = 'open' AND l.queue = g.queue AND l.reason = g.reason
                    AND l.sender = g.sender LIMIT :quota) AS few) END AS there
        FROM given AS g GROUP BY g.queue, g.reason, g.sender
    ), kept AS (
        INSERT INTO saga_engine.dead_letter (queue, reason, message_id, correlation_id, type,
            exchange, routing_key, detail, run_id, properties, headers, body, body_size, truncated,
            fingerprint, sender, signed)
        SELECT g.queue, g.reason, g.message_id, g.correlation_id, g.type, g.exchange,
            g.routing_key, g.detail, g.run_id, g.properties::jsonb, g.headers::jsonb, g.body,
            g.body_size, g.truncated, g.fingerprint, g.sender, g.signed
        FROM given AS g JOIN kinds AS k USING (queue, reason, sender)
        WHERE g.owed OR g.turn + k.there <= :quota ORDER BY g.place
    )
    SELECT g.place::integer FROM given AS g JOIN kinds AS k USING (queue, reason, sender)
    WHERE g.owed OR g.turn + k.there <= :quota"""  # noqa: S608 - a constant
)

_DROPPED = text(
    f"""
    INSERT INTO saga_engine.dead_letter_dropped AS d (queue, reason, sender, dropped)
    SELECT u.queue, u.reason, u.sender, u.number
    FROM unnest(CAST(:queues AS text[]), CAST(:reasons AS text[]), CAST(:senders AS text[]),
        CAST(:numbers AS bigint[])) AS u(queue, reason, sender, number)
    ON CONFLICT (queue, reason, sender) DO UPDATE
    SET dropped = d.dropped + excluded.dropped, last_at = clock_timestamp(),
        full_at = CASE WHEN d.full_at > now() - interval '{FULL_FOR} seconds'
            THEN d.full_at ELSE now() END"""  # noqa: S608 - a constant
)

_READ_DROPPED = text(
    f"""
    SELECT queue, reason, sender, dropped FROM saga_engine.dead_letter_dropped
    ORDER BY dropped DESC LIMIT {GROUPS}"""  # noqa: S608 - a constant
)
