"""
What waits in PostgreSQL for a worker, instead of in a queue.

Starts that a caller recorded in its own transaction, requests of operators, and whatever arrived at
a worker without the definition it is for: nothing is requeued in a loop, nothing is guessed. A
worker takes what it has the definition for and decides it in the same transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import text

from saga_engine.store.database import Transaction
from saga_engine.store.document import dumps


@dataclass(frozen=True, slots=True)
class Item:
    """
    One thing to record.

    `kind` and `body` are those of `trigger_data`. A start names its saga, and its version unless
    the newest will do; everything else belongs to a run, whose definition is looked up when it is
    not given. `audit_id` is the record that is to be settled with the decision; `reply_to` and
    `correlation_id` say where an answer is waited for. It is not taken before `delay` is over.
    """

    kind: str
    run_id: str
    body: dict[str, Any]
    saga: str | None = None
    version: int | None = None
    definition_id: int | None = None
    audit_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    delay: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Inboxed:
    """One thing that was recorded, as `Item`."""

    id: int
    kind: str
    run_id: str
    body: dict[str, Any]
    saga: str | None
    version: int | None
    definition_id: int | None
    audit_id: str | None
    reply_to: str | None
    correlation_id: str | None
    received_at: datetime


async def record(tx: Transaction, items: Sequence[Item]) -> None:
    """Record *items*, in order."""
    if not items:
        return
    await tx.execute(
        _RECORD,
        {
            "run_ids": [item.run_id for item in items],
            "definition_ids": [item.definition_id for item in items],
            "versions": [item.version for item in items],
            "sagas": [item.saga for item in items],
            "kinds": [item.kind for item in items],
            "audit_ids": [item.audit_id for item in items],
            "reply_to": [item.reply_to for item in items],
            "correlation_ids": [item.correlation_id for item in items],
            "delays": [item.delay for item in items],
            "bodies": [dumps(item.body) for item in items],
        },
    )


async def take(
    tx: Transaction, *, sagas: Sequence[str], definition_ids: Sequence[int], limit: int
) -> list[Inboxed]:
    """
    Take out up to *limit* items this worker can decide, oldest first.

    Args:
        sagas: the names it can start in any version.
        definition_ids: the definitions it has.
    """
    arguments = {"sagas": list(sagas), "definition_ids": list(definition_ids), "limit": limit}
    taken = [
        Inboxed(number, kind, run_id, orjson.loads(body), *others)
        for number, kind, run_id, body, *others in await tx.execute(_TAKE, arguments)
    ]
    return sorted(taken, key=lambda item: item.id)


_RECORD = text(
    """
    INSERT INTO saga_engine.inbox (run_id, definition_id, version, saga, kind, audit_id, body,
        reply_to, correlation_id, not_before)
    SELECT u.run_id,
        coalesce(u.definition_id, CASE WHEN u.kind <> 'start' THEN
            (SELECT r.definition_id FROM saga_engine.run AS r WHERE r.run_id = u.run_id) END),
        u.version, u.saga, u.kind, u.audit_id, u.body::jsonb,
        u.reply_to, u.correlation_id,
        CASE WHEN u.delay > interval '0' THEN clock_timestamp() + u.delay END
    FROM unnest(CAST(:run_ids AS uuid[]), CAST(:definition_ids AS integer[]),
        CAST(:versions AS integer[]), CAST(:sagas AS text[]), CAST(:kinds AS text[]),
        CAST(:audit_ids AS uuid[]), CAST(:bodies AS text[]), CAST(:reply_to AS text[]),
        CAST(:correlation_ids AS text[]), CAST(:delays AS interval[])) WITH ORDINALITY
        AS u(run_id, definition_id, version, saga, kind, audit_id, body, reply_to, correlation_id,
            delay, place)
    ORDER BY u.place"""
)

# A request for a run that was not there when it came is held back while a start of that run waits
# here; then it goes to whoever has the definition, and if there still is no run, to anyone.
_TAKE = text(
    """
    DELETE FROM saga_engine.inbox WHERE id = ANY (ARRAY(
        SELECT i.id FROM saga_engine.inbox AS i
        WHERE coalesce(i.not_before <= clock_timestamp(), true) AND CASE
            WHEN i.definition_id IS NOT NULL
                THEN i.definition_id = ANY (CAST(:definition_ids AS integer[]))
            WHEN i.kind = 'start' AND i.version IS NULL
                THEN i.saga = ANY (CAST(:sagas AS text[]))
            WHEN i.kind = 'start' THEN EXISTS (
                SELECT FROM saga_engine.definition AS d
                WHERE d.id = ANY (CAST(:definition_ids AS integer[]))
                    AND d.name = i.saga AND d.version = i.version)
            ELSE NOT EXISTS (
                    SELECT FROM saga_engine.inbox AS s
                    WHERE s.run_id = i.run_id AND s.kind = 'start')
                AND coalesce((
                    SELECT r.definition_id = ANY (CAST(:definition_ids AS integer[]))
                    FROM saga_engine.run AS r WHERE r.run_id = i.run_id), true)
            END
        ORDER BY i.id LIMIT :limit FOR UPDATE OF i SKIP LOCKED))
    RETURNING id, kind, run_id::text, body::text, saga, version, definition_id, audit_id::text,
        reply_to, correlation_id, received_at"""
)
