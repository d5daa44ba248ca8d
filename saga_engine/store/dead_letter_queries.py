"""Reads of dead letters: pages, counts and groups. Nothing here locks or changes one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from saga_engine.postgres.statement import Transaction, text
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.store.bounded_count import BoundedCount, count_up_to
from saga_engine.store.dead_letters import DeadLetter, DeadLetterState


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDeadLetter:
    """A dead letter as it is stored: its message, and what was done with it."""

    id: int
    received_at: datetime
    state: DeadLetterState
    truncated: bool
    fingerprint: str
    message: DeadLetter
    resolved_at: datetime | None
    resolved_by: str | None
    resolved_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterGroup:
    """Open dead letters of one queue, reason and type."""

    queue: str
    reason: DeadLetterReason | str  # as in DeadLetter
    type: str
    count: int
    first_received_at: datetime
    last_received_at: datetime
    newest_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """
    Selects dead letters; None: any.

    Args:
        excluded_reason: dead letters with this reason are left out.
        min_age_days: only those that were received at least so many days ago.
    """

    state: DeadLetterState | None = None
    queue: str | None = None
    reason: str | None = None
    excluded_reason: DeadLetterReason | None = None
    min_age_days: int | None = None


OPEN_DEAD_LETTERS = DeadLetterFilter(state=DeadLetterState.OPEN)
ALL_DEAD_LETTERS = DeadLetterFilter()


async def read_page(
    tx: Transaction,
    letter_filter: DeadLetterFilter = OPEN_DEAD_LETTERS,
    *,
    limit: int,
    before_id: int | None = None,
) -> list[StoredDeadLetter]:
    """Read dead letters, the newest first; `before_id` is the last id of the previous page."""
    conditions, arguments = _conditions(letter_filter)
    if before_id is not None:
        conditions.append("l.id < :before_id")
        arguments["before_id"] = before_id
    query = text(
        f"SELECT {DEAD_LETTER_COLUMNS} FROM saga_engine.dead_letter AS l"  # noqa: S608 - constants
        f" {_where_clause(conditions)} ORDER BY l.id DESC LIMIT :limit"
    )
    rows = await tx.execute(query, {**arguments, "limit": limit})
    return [to_stored_dead_letter(row) for row in rows]


async def count(
    tx: Transaction, letter_filter: DeadLetterFilter = OPEN_DEAD_LETTERS, *, count_limit: int
) -> BoundedCount:
    """Count dead letters, up to *count_limit*."""
    conditions, arguments = _conditions(letter_filter)
    source = f"FROM saga_engine.dead_letter AS l {_where_clause(conditions)}"
    return await count_up_to(tx, source, arguments, count_limit)


async def find_ids(
    tx: Transaction, letter_filter: DeadLetterFilter, *, limit: int, after_id: int = 0
) -> list[int]:
    """
    Find the ids of dead letters, the oldest first, without reading their bodies.

    Args:
        after_id: the last id of the previous page.
    """
    conditions, arguments = _conditions(letter_filter)
    query = text(
        "SELECT l.id FROM saga_engine.dead_letter AS l"  # noqa: S608 - constants
        f" {_where_clause([*conditions, 'l.id > :after_id'])} ORDER BY l.id LIMIT :limit"
    )
    found = await tx.execute(query, {**arguments, "after_id": after_id, "limit": limit})
    return list(found.scalars())


async def find(tx: Transaction, letter_id: int) -> StoredDeadLetter | None:
    """Read one dead letter; None when there is none with that id."""
    row = (await tx.execute(_FIND, {"id": letter_id})).one_or_none()
    return None if row is None else to_stored_dead_letter(row)


async def split_by_size(
    tx: Transaction, ids: Sequence[int], *, max_letters: int, max_bytes: int
) -> list[list[int]]:
    """
    Split dead letters into batches that fit into memory.

    Args:
        max_letters: dead letters in one batch.
        max_bytes: bytes of bodies in one batch; a larger dead letter is a batch of its own.
    """
    found = await tx.execute(_BODY_SIZES, {"ids": sorted(ids)})
    batches: list[list[int]] = []
    batch_bytes = 0
    for letter_id, body_bytes in found:
        if not batches or len(batches[-1]) >= max_letters or batch_bytes + body_bytes > max_bytes:
            batches.append([])
            batch_bytes = 0
        batches[-1].append(letter_id)
        batch_bytes += body_bytes
    return batches


async def groups(tx: Transaction) -> list[DeadLetterGroup]:
    """Count the open dead letters by queue, reason and type, the largest group first."""
    return [
        DeadLetterGroup(
            queue=queue,
            reason=known_reason(reason),
            type=message_type,
            count=number,
            first_received_at=first,
            last_received_at=last,
            newest_id=newest_id,
        )
        for queue, reason, message_type, number, first, last, newest_id in await tx.execute(_GROUPS)
    ]


def known_reason(text: str) -> DeadLetterReason | str:
    """Read a stored reason; one that a later version wrote stays a text."""
    try:
        return DeadLetterReason(text)
    except ValueError:
        return text


def to_stored_dead_letter(row: Any) -> StoredDeadLetter:
    """Make a dead letter of a row that has `DEAD_LETTER_COLUMNS`."""
    message = DeadLetter(
        queue=row.queue,
        reason=known_reason(row.reason),
        detail=row.detail,
        body=bytes(row.body),
        body_size=row.body_size,
        run_id=row.run_id,
        message_id=row.message_id,
        correlation_id=row.correlation_id,
        type=row.type,
        exchange=row.exchange,
        routing_key=row.routing_key,
        properties=orjson.loads(row.properties),
        headers=orjson.loads(row.headers),
        is_engine_token=row.is_engine_token,
    )
    return StoredDeadLetter(
        id=row.id,
        received_at=row.received_at,
        state=DeadLetterState(row.state),
        truncated=row.truncated,
        fingerprint=row.fingerprint,
        message=message,
        resolved_at=row.resolved_at,
        resolved_by=row.resolved_by,
        resolved_reason=row.resolved_reason,
    )


def _conditions(letter_filter: DeadLetterFilter) -> tuple[list[str], dict[str, Any]]:
    """Write the filter as conditions in SQL and their arguments."""
    conditions, arguments = [], dict[str, Any]()
    if letter_filter.state is DeadLetterState.OPEN:
        conditions.append(_IS_OPEN)
    elif letter_filter.state is not None:
        conditions.append("l.state = :state")
        arguments["state"] = letter_filter.state.value
    for name, value in {"queue": letter_filter.queue, "reason": letter_filter.reason}.items():
        if value:
            conditions.append(f"l.{name} = :{name}")
            arguments[name] = value
    if letter_filter.excluded_reason is not None:
        conditions.append("l.reason <> :excluded_reason")
        arguments["excluded_reason"] = letter_filter.excluded_reason
    if letter_filter.min_age_days is not None:
        conditions.append(_OLDER_THAN_DAYS)
        arguments["min_age_days"] = letter_filter.min_age_days
    return conditions, arguments


def _where_clause(conditions: Sequence[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


DEAD_LETTER_COLUMNS = """
    l.id, l.received_at, l.state, l.truncated, l.fingerprint, l.resolved_at, l.resolved_by,
    l.resolved_reason, l.queue, l.reason, l.detail, l.body, l.body_size, l.run_id::text AS run_id,
    l.message_id, l.correlation_id, l.type, l.exchange, l.routing_key,
    l.properties::text AS properties, l.headers::text AS headers, l.is_engine_token"""

_IS_OPEN = "l.state = 'open'"  # a literal, or the planner cannot use the partial index

_OLDER_THAN_DAYS = (
    "l.received_at < clock_timestamp() - make_interval(days => CAST(:min_age_days AS integer))"
)

_FIND = text(
    f"SELECT {DEAD_LETTER_COLUMNS} FROM saga_engine.dead_letter AS l WHERE l.id = :id"  # noqa: S608 - a constant
)

_BODY_SIZES = text(
    """
    SELECT id, octet_length(body) FROM saga_engine.dead_letter
    WHERE id = ANY (CAST(:ids AS bigint[])) ORDER BY id"""
)

_GROUPS = text(
    f"""
    SELECT l.queue, l.reason, l.type, count(*), min(l.received_at), max(l.received_at), max(l.id)
    FROM saga_engine.dead_letter AS l WHERE {_IS_OPEN}
    GROUP BY l.fingerprint, l.queue, l.reason, l.type
    ORDER BY count(*) DESC, l.queue, l.reason, l.type"""  # noqa: S608 - a constant
)
