"""
Ordering again what was on its way when the broker lost it, or when this database was restored.

Nothing is decided here: an attempt that a run awaits goes into the outbox once more, as it is, and
the sweep of any worker sends it, with the same idempotency key. A participant that has done it
already answers what it answered then. What was settled meanwhile, the sweep leaves out.
"""

from dataclasses import dataclass

from saga_engine.postgres.statement import Transaction, text
from saga_engine.store.database import Database

_PAGE_SIZE = 500  # runs in one transaction
_NIL_RUN_ID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class ResendResult:
    """How many runs awaited something, and how many commands were ordered again for them."""

    runs: int
    commands: int


async def resend_in_flight(database: Database) -> ResendResult:
    """
    Order every command again that a run awaits an answer to.

    Each run has its whole timeout again, from now, and a minute for the workers to be started: what
    was in flight when a backup was made is long overdue. Where several steps of a run are in
    flight, the first reply ends that for the others, and those still silent spend an attempt. It
    may be done at any time and as often as one likes, beside workers that work.

    Raises:
        StoreUnavailable: some may have been ordered; do it again.
    """
    runs = commands = 0
    after_run_id: str | None = _NIL_RUN_ID
    while after_run_id is not None:
        async with database.transaction() as tx:
            page, after_run_id = await _resend_page(tx, after_run_id)
        runs, commands = runs + page.runs, commands + page.commands
    return ResendResult(runs, commands)


async def _resend_page(tx: Transaction, after_run_id: str) -> tuple[ResendResult, str | None]:
    """One page of runs, and the last id of it; None when there was none."""
    # Locked in the order of their ids, as batches do, so that neither waits for the other for ever.
    page = await unfinished_runs(tx, after_run_id, _PAGE_SIZE)
    if not page:
        return ResendResult(0, 0), None
    ids = list((await tx.execute(_LOCK, {"run_ids": page})).scalars())
    if not ids:
        return ResendResult(0, 0), page[-1]  # all of them have ended meanwhile
    arguments = {"run_ids": ids, "first": ids[0], "last": ids[-1]}
    await tx.execute(_DELETE_OUTBOX_ROWS, arguments)
    runs = list((await tx.execute(_ADD_TO_OUTBOX, arguments)).scalars())
    await tx.execute(_POSTPONE_WAKE, arguments)
    return ResendResult(len(set(runs)), len(runs)), page[-1]


async def unfinished_runs(tx: Transaction, after_run_id: str, limit: int) -> list[str]:
    """Name the first *limit* unfinished runs after the id *after*, in the order of their ids."""
    return list((await tx.execute(_UNFINISHED, {"after": after_run_id, "page": limit})).scalars())


# Of each definition and status by itself the first, by their index; of those the first. With an
# equality instead of BETWEEN the primary key would give the order too, and read what is finished.
_UNFINISHED = text(
    """
    SELECT t.run_id::text
    FROM saga_engine.definition AS d, unnest(ARRAY['running', 'compensating']) AS s(status),
        LATERAL (
            SELECT r.run_id FROM saga_engine.run AS r
            WHERE r.definition_id = d.id AND r.status BETWEEN s.status AND s.status
                AND r.run_id > CAST(:after AS uuid)
            ORDER BY r.status, r.run_id LIMIT :page) AS t
    ORDER BY t.run_id LIMIT :page"""
)

_LOCK = text(
    """
    SELECT r.run_id::text FROM saga_engine.run AS r
    WHERE r.run_id = ANY (CAST(:run_ids AS uuid[])) AND r.status IN ('running', 'compensating')
    ORDER BY r.run_id FOR UPDATE"""
)

# Whatever the outbox holds of these runs is either in flight, so that it comes again, or nobody's.
_DELETE_OUTBOX_ROWS = text(
    "DELETE FROM saga_engine.outbox WHERE run_id = ANY (CAST(:run_ids AS uuid[]))"
)

# Claimed for ever ago: the sweep takes it at once, and the age of the outbox does not jump.
_ADD_TO_OUTBOX = text(
    """
    INSERT INTO saga_engine.outbox (run_id, due_at, version, attempt, saga, step, direction,
        command, idempotency_key, payload, claimed_at)
    SELECT r.run_id,
        clock_timestamp() + (
            (w.progress ->> 'due_at')::timestamptz - (w.progress ->> 'sent_at')::timestamptz),
        d.version, (w.progress ->> 'attempts')::integer, d.name, s.step ->> 'name', w.direction,
        w.command,
        concat_ws('/', r.run_id, s.step ->> 'name', w.direction,
            coalesce(w.progress ->> 'round', '1')),
        coalesce(w.progress -> 'payload', 'null')::json, '-infinity'
    FROM saga_engine.run AS r
    JOIN saga_engine.definition AS d ON d.id = r.definition_id,
        jsonb_array_elements(d.document -> 'steps') AS s(step),
        jsonb_extract_path(r.state, 'steps', s.step ->> 'name') AS at,
        LATERAL (VALUES
            ('action', s.step ->> 'command', at -> 'action'),
            ('compensation', s.step ->> 'compensation', at -> 'compensation'))
            AS w(direction, command, progress)
    WHERE r.run_id = ANY (CAST(:run_ids AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)
        AND w.progress ->> 'status' = 'in_flight'
    ORDER BY r.run_id
    RETURNING run_id::text"""
)

# A minute more than the timeout, because the workers may have yet to be started.
_POSTPONE_WAKE = text(
    """
    UPDATE saga_engine.run AS r
    SET wake_at = greatest(r.wake_at, o.due_at + interval '1 minute')
    FROM (
        SELECT run_id, min(due_at) AS due_at FROM saga_engine.outbox
        WHERE run_id = ANY (CAST(:run_ids AS uuid[])) GROUP BY run_id) AS o
    WHERE r.run_id = o.run_id AND r.run_id = ANY (CAST(:run_ids AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)"""
)
