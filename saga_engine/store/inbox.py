"""
What waits in PostgreSQL for a worker, instead of in a queue.

Starts that a caller recorded in its own transaction, requests of operators, and whatever arrived at
a worker without the definition it is for: nothing is requeued in a loop, nothing is guessed. A
worker takes what it has the definition for and decides it in the same transaction.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from saga_engine.store.database import Transaction
from saga_engine.store.document import dumps

ALL = 2**62
"""More bytes than any bodies have."""


@dataclass(frozen=True, slots=True)
class Item:
    """
    One thing to record.

    `kind` and `body` are those of `trigger_data`. A start names its saga, and its version unless
    the newest will do, and its business key, if it has one; everything else belongs to a run, whose
    definition is looked up when it is not given. `audit_id` is the record that is to be settled
    with the decision; `reply_to` and `correlation_id` say where an answer is waited for. `sender`
    is the RabbitMQ user of the message it came in, None for what came by no message; `role` the
    role of PostgreSQL that recorded it, None for what the engine itself keeps. It is not taken
    before `delay` is over.
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
    sender: str | None = None
    key: str | None = None
    role: str | None = None
    delay: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Inboxed:
    """
    One thing that was recorded, as `Item`.

    Others than the engine may have written it: `body` is its text as it stands there, `size` the
    length of that in bytes. A body that is longer than allowed is cut, and `whole` is False.
    """

    id: int
    kind: str
    run_id: str
    body: str
    size: int
    whole: bool
    saga: str | None
    version: int | None
    definition_id: int | None
    audit_id: str | None
    reply_to: str | None
    correlation_id: str | None
    sender: str | None
    key: str | None
    role: str | None


@dataclass(frozen=True, slots=True)
class Lengths:
    """
    How much of a body is fetched, in bytes.

    Args:
        ours: the longest that the engine itself may have recorded.
        others: the longest of another role.
        kept: how much is read of a longer one, for the record.
    """

    ours: int = 1_572_864
    others: int = 524_288
    kept: int = 65_536


@dataclass(frozen=True, slots=True)
class WaitingStart:
    """
    A start that waits: of which saga, with which key.

    Where no version was asked for it is the newest on record; None: of that saga there is none.
    """

    saga: str
    version: int | None
    key: str | None


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
            "senders": [item.sender for item in items],
            "keys": [item.key for item in items],
            "roles": [item.role for item in items],
            "delays": [item.delay for item in items],
            "bodies": [dumps(item.body) for item in items],
        },
    )


async def take(
    tx: Transaction,
    *,
    definition_ids: Sequence[int],
    limit: int,
    lengths: Lengths = Lengths(),
    most: int = ALL,
) -> list[Inboxed]:
    """
    Take out up to *limit* items that are no starts and that this worker can decide, oldest first.

    Args:
        definition_ids: the definitions it has.
        most: bytes of bodies after which no further item is taken.
    """
    arguments = {
        "definition_ids": list(definition_ids),
        "limit": limit,
        "most": most,
        **asdict(lengths),
    }
    return inboxed(await tx.execute(_TAKE, arguments))


async def take_starts(
    tx: Transaction,
    turns: Mapping[str, int],
    *,
    definition_ids: Sequence[int],
    limit: int,
    lengths: Lengths = Lengths(),
    most: int = ALL,
) -> list[Inboxed]:
    """
    Take out up to *limit* starts that this worker can decide, oldest first.

    Args:
        turns: how many of each saga at the most, by its name.
        definition_ids: the definitions it has.
        most: bytes of bodies after which no further start is taken.
    """
    if not turns:
        return []
    arguments = {
        "sagas": list(turns),
        "limits": list(turns.values()),
        "definition_ids": list(definition_ids),
        "limit": limit,
        "most": most,
        **asdict(lengths),
    }
    return inboxed(await tx.execute(_TAKE_STARTS, arguments))


async def rest(tx: Transaction, numbers: Sequence[int], pause: timedelta) -> None:
    """Leave items alone for a while, without reading them."""
    await tx.execute(_REST, {"ids": list(numbers), "pause": pause})


async def sagas_waiting(
    tx: Transaction, sagas: Sequence[str], definition_ids: Sequence[int]
) -> set[str]:
    """Which of *sagas* have starts that wait, and that this worker could take."""
    arguments = {"sagas": list(sagas), "definition_ids": list(definition_ids)}
    return set((await tx.execute(_SAGAS_WAITING, arguments)).scalars())


async def starts_of(tx: Transaction, run_ids: Collection[str]) -> dict[str, WaitingStart]:
    """Find the starts that wait of these runs, by run id; the others are left out."""
    if not run_ids:
        return {}
    rows = await tx.execute(_STARTS_OF, {"run_ids": sorted(run_ids)})
    return {run_id: WaitingStart(*others) for run_id, *others in rows}


def inboxed(rows: Iterable[Any]) -> list[Inboxed]:
    """Read the rows that a statement took out, the oldest first."""
    return sorted((Inboxed(*row) for row in rows), key=lambda item: item.id)


_RECORD = text(
    """
    INSERT INTO saga_engine.inbox (run_id, definition_id, version, saga, kind, audit_id, body,
        reply_to, correlation_id, sender, key, role, not_before)
    SELECT u.run_id,
        coalesce(u.definition_id, CASE WHEN u.kind <> 'start' THEN
            (SELECT r.definition_id FROM saga_engine.run AS r WHERE r.run_id = u.run_id) END),
        u.version, u.saga, u.kind, u.audit_id, u.body,
        u.reply_to, u.correlation_id, u.sender, u.key, u.role,
        CASE WHEN u.delay > interval '0' THEN clock_timestamp() + u.delay END
    FROM unnest(CAST(:run_ids AS uuid[]), CAST(:definition_ids AS integer[]),
        CAST(:versions AS integer[]), CAST(:sagas AS text[]), CAST(:kinds AS text[]),
        CAST(:audit_ids AS uuid[]), CAST(:bodies AS text[]), CAST(:reply_to AS text[]),
        CAST(:correlation_ids AS text[]), CAST(:senders AS text[]),
        CAST(:keys AS text[]), CAST(:roles AS text[]), CAST(:delays AS interval[])) WITH ORDINALITY
        AS u(run_id, definition_id, version, saga, kind, audit_id, body, reply_to, correlation_id,
            sender, key, role, delay, place)
    ORDER BY u.place"""
)

# A body is looked at by its length before any of it leaves the server: others may have written it.
RETURNING = """
    RETURNING id, kind, run_id::text,
        CASE WHEN octet_length(body) <= {longest}
            THEN body ELSE substr(body, 1, CAST(:kept AS integer)) END,
        octet_length(body), octet_length(body) <= {longest},
        saga, version, definition_id, audit_id::text, reply_to, correlation_id, left(sender, 1000),
        key, role""".format(
    longest="CASE WHEN role IS NULL THEN CAST(:ours AS integer) ELSE CAST(:others AS integer) END"
)

# A request for a run that was not there when it came is held back while a start of that run waits
# here; then it goes to whoever has the definition, and if there still is no run, to anyone.
_TAKE = text(
    """
    DELETE FROM saga_engine.inbox WHERE id = ANY (ARRAY(
        SELECT b.id FROM (SELECT f.id, sum(f.size) OVER (ORDER BY f.id) - f.size AS before FROM (
        SELECT i.id, octet_length(i.body) AS size FROM saga_engine.inbox AS i
        WHERE i.kind <> 'start' AND coalesce(i.not_before <= clock_timestamp(), true) AND CASE
            WHEN i.definition_id IS NOT NULL
                THEN i.definition_id = ANY (CAST(:definition_ids AS integer[]))
            ELSE NOT EXISTS (
                    SELECT FROM saga_engine.inbox AS s
                    WHERE s.run_id = i.run_id AND s.kind = 'start')
                AND coalesce((
                    SELECT r.definition_id = ANY (CAST(:definition_ids AS integer[]))
                    FROM saga_engine.run AS r WHERE r.run_id = i.run_id), true)
            END
        ORDER BY i.id LIMIT :limit FOR UPDATE OF i SKIP LOCKED) AS f) AS b
        WHERE b.before < :most))"""  # noqa: S608 - a constant follows
    + RETURNING
)

_TAKE_STARTS = text(
    """
    DELETE FROM saga_engine.inbox WHERE id = ANY (ARRAY(
        SELECT b.id FROM (SELECT f.id, sum(f.size) OVER (ORDER BY f.id) - f.size AS before FROM (
        SELECT t.id, t.size
        FROM unnest(CAST(:sagas AS text[]), CAST(:limits AS integer[])) AS w(saga, places),
        LATERAL (
            SELECT i.id, octet_length(i.body) AS size FROM saga_engine.inbox AS i
            WHERE i.kind = 'start' AND i.saga = w.saga
                AND coalesce(i.not_before <= clock_timestamp(), true)
                AND (i.version IS NULL OR EXISTS (
                    SELECT FROM saga_engine.definition AS d
                    WHERE d.id = ANY (CAST(:definition_ids AS integer[]))
                        AND d.name = i.saga AND d.version = i.version))
            ORDER BY i.id LIMIT w.places FOR UPDATE OF i SKIP LOCKED) AS t
        ORDER BY t.id LIMIT :limit) AS f) AS b
        WHERE b.before < :most))"""  # noqa: S608 - the same
    + RETURNING
)

_REST = text(
    """
    UPDATE saga_engine.inbox SET not_before = clock_timestamp() + CAST(:pause AS interval)
    WHERE id = ANY (CAST(:ids AS bigint[]))"""
)

_SAGAS_WAITING = text(
    """
    SELECT w.saga FROM unnest(CAST(:sagas AS text[])) AS w(saga)
    WHERE EXISTS (
        SELECT FROM saga_engine.inbox AS i
        WHERE i.kind = 'start' AND i.saga = w.saga
            AND coalesce(i.not_before <= clock_timestamp(), true)
            AND (i.version IS NULL OR EXISTS (
                SELECT FROM saga_engine.definition AS d
                WHERE d.id = ANY (CAST(:definition_ids AS integer[]))
                    AND d.name = i.saga AND d.version = i.version)))"""
)

_STARTS_OF = text(
    """
    SELECT i.run_id::text, i.saga,
        coalesce(i.version, (
            SELECT max(d.version) FROM saga_engine.definition AS d WHERE d.name = i.saga)),
        i.key
    FROM saga_engine.inbox AS i
    WHERE i.run_id = ANY (CAST(:run_ids AS uuid[])) AND i.kind = 'start'"""
)
