"""
Sends commands in flight again, after the broker has lost messages or a backup was restored.

Nothing is decided here: each attempt that a run awaits is added to the outbox once more, with the
idempotency key that decider/commands.py makes (change both together). The `outbox_resend` duty of
a worker publishes it. A participant that has processed the command before sends the same reply as
then. Commands that were answered in the meantime are deleted.
"""

from dataclasses import dataclass

from saga_engine.postgres.statement import Transaction, TransactionSource, text

_PAGE_SIZE = 500  # runs in one transaction
_NIL_RUN_ID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class ResendResult:
    """How many runs had commands in flight, and how many commands were added to the outbox."""

    runs: int
    commands: int


async def resend_in_flight(database: TransactionSource) -> ResendResult:
    """
    Add every command in flight to the outbox again.

    Each run gets its whole timeout again, from now, and one minute more in which the workers are
    started: commands that were in flight at the time of a backup are long overdue. If several steps
    of a run are in flight, the first reply ends the extension for the others, and a step without a
    reply then uses an attempt. This is safe at any time, any number of times, and while workers
    run.

    Raises:
        StoreUnavailable: some commands may have been added; call it again.
    """
    runs = commands = 0
    after_run_id: str | None = _NIL_RUN_ID
    while after_run_id is not None:
        async with database.transaction() as tx:
            page, after_run_id = await _resend_page(tx, after_run_id)
        runs, commands = runs + page.runs, commands + page.commands
    return ResendResult(runs, commands)


async def _resend_page(tx: Transaction, after_run_id: str) -> tuple[ResendResult, str | None]:
    """Process one page of runs, and return its last id; None when there was no page."""
    # Locked in the order of their ids, as batches do, so that neither deadlocks with the other.
    page = await unfinished_runs(tx, after_run_id, _PAGE_SIZE)
    if not page:
        return ResendResult(0, 0), None
    ids = list((await tx.execute(_LOCK, {"run_ids": page})).scalars())
    if not ids:
        return ResendResult(0, 0), page[-1]  # all of them have finished in the meantime
    arguments = {"run_ids": ids, "first": ids[0], "last": ids[-1]}
    await tx.execute(_DELETE_OUTBOX_ROWS, arguments)
    runs = list((await tx.execute(_ADD_TO_OUTBOX, arguments)).scalars())
    await tx.execute(_POSTPONE_WAKE, arguments)
    return ResendResult(len(set(runs)), len(runs)), page[-1]


async def unfinished_runs(tx: Transaction, after_run_id: str, limit: int) -> list[str]:
    """Return the ids of the first *limit* unfinished runs after an id, in order."""
    return list((await tx.execute(_UNFINISHED, {"after": after_run_id, "page": limit})).scalars())


# The first of each definition and status, by the index; of those the first. With an equality
# instead of BETWEEN the planner could use the primary key for the order, and read finished runs.
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

# A row of the outbox is either in flight, and is added again, or its attempt is no longer awaited.
_DELETE_OUTBOX_ROWS = text(
    "DELETE FROM saga_engine.outbox WHERE run_id = ANY (CAST(:run_ids AS uuid[]))"
)

# `claimed_at` is -infinity: the duty claims the row at once, and the age of the outbox does not
# rise.
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
