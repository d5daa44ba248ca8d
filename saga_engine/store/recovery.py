"""
Sends commands in flight again, after the broker has lost messages or a backup was restored.

Nothing is decided here: each attempt that a run awaits is added to the outbox once more, as it was
sent. Each of these runs gets a row of its journal without events, because its timer is moved: a
worker that decides about the run at the same time loses the race, or this transaction does and the
run has its turn in the next one. The `outbox_resend` duty of a worker publishes the commands. A
participant that has processed one before sends the same reply as then. Commands that were answered
in the meantime are deleted. A damaged run is left out.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from saga_engine.decider.commands import commands_in_flight
from saga_engine.postgres.statement import Transaction, TransactionSource, text
from saga_engine.store import runs
from saga_engine.store.outbox import command_columns
from saga_engine.store.runs import StoredRun
from saga_engine.vocabulary import Command, Direction

_PAGE_SIZE = 500  # runs in one transaction
_PAGE_BYTES = 16 * 1024 * 1024  # of their journals that are read at once
_NIL_RUN_ID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class ResendResult:
    """How many runs had commands in flight, and how many commands were added to the outbox."""

    runs: int
    commands: int

    def plus(self, other: "ResendResult") -> "ResendResult":
        return ResendResult(self.runs + other.runs, self.commands + other.commands)


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
    resent = ResendResult(0, 0)
    after_run_id: str | None = _NIL_RUN_ID
    while after_run_id is not None:
        async with database.transaction() as tx:
            page = await unfinished_runs(tx, after_run_id, _PAGE_SIZE)
        after_run_id = page[-1] if page else None
        while page:
            async with database.transaction() as tx:
                resent_now, page = await _resend(tx, page)
            resent = resent.plus(resent_now)
    return resent


async def _resend(tx: Transaction, run_ids: Sequence[str]) -> tuple[ResendResult, list[str]]:
    """Process some runs; return also those that a worker has changed at this moment."""
    arguments = runs.run_id_arguments(run_ids)
    unfinished = set((await tx.execute(_STILL_UNFINISHED, arguments)).scalars())
    fenced = sorted((await tx.execute(_FENCE, arguments)).scalars())
    if not fenced:
        return ResendResult(0, 0), sorted(unfinished)
    names = await _command_names(tx, fenced)
    resent = ResendResult(0, 0)
    async for part in runs.read_readable(tx, fenced, max_bytes=_PAGE_BYTES):
        part_ids = [stored.run.run_id for stored in part]
        await tx.execute(_DELETE_OUTBOX_ROWS, {"run_ids": part_ids})
        commands = [
            command
            for stored in part
            for command in commands_in_flight(stored.run, names[stored.definition_id])
        ]
        await tx.execute(_ADD_TO_OUTBOX, _resent_columns(part, commands))
        run_count = len({each.run_id for each in commands})
        resent = resent.plus(ResendResult(run_count, len(commands)))
    await tx.execute(_POSTPONE_WAKE, runs.run_id_arguments(fenced))
    return resent, sorted(unfinished.difference(fenced))


def _resent_columns(part: Collection[StoredRun], commands: Sequence[Command]) -> dict[str, Any]:
    """Write the commands as rows of the outbox, with the whole timeout that each attempt had."""
    runs_by_id = {stored.run.run_id: stored.run for stored in part}
    timeouts = []
    for each in commands:
        sent_at = runs_by_id[each.run_id].steps[each.step].progress_of(each.direction).sent_at
        assert sent_at is not None, "an attempt in flight was sent"
        timeouts.append(each.deadline - sent_at)
    return {**command_columns(commands), "timeout": timeouts}


async def _command_names(
    tx: Transaction, run_ids: Sequence[str]
) -> dict[int, dict[tuple[str, Direction], str]]:
    """The names of commands, by definition, of the definitions of these runs."""
    names = defaultdict[int, dict[tuple[str, Direction], str]](dict)
    for definition_id, step, action, compensation in await tx.execute(
        _COMMAND_NAMES, runs.run_id_arguments(run_ids)
    ):
        names[definition_id] |= {
            (step, Direction.ACTION): action,
            (step, Direction.COMPENSATION): compensation,
        }
    return names


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

_STILL_UNFINISHED_SQL = """
    FROM saga_engine.run AS r
    WHERE r.run_id = ANY (CAST(:run_ids AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)
        AND r.status IN ('running', 'compensating')"""

_STILL_UNFINISHED = text(f"SELECT r.run_id::text {_STILL_UNFINISHED_SQL}")

# In the order of their ids, as batches append, so that neither deadlocks with the other.
_FENCE = text(
    f"""
    INSERT INTO saga_engine.journal (run_id, revision, recorded_at, position, events)
    SELECT f.run_id, f.revision + 1, clock_timestamp(), drawn.first + f.place, '[]'
    FROM saga_engine.draw_positions(cardinality(CAST(:run_ids AS uuid[]))) AS drawn(first), (
        SELECT r.run_id, row_number() OVER (ORDER BY r.run_id) - 1 AS place, (
            SELECT coalesce(max(j.revision), 0) FROM saga_engine.journal AS j
            WHERE j.run_id = r.run_id) AS revision
        {_STILL_UNFINISHED_SQL}) AS f
    ORDER BY f.run_id
    ON CONFLICT (run_id, revision) DO NOTHING
    RETURNING run_id::text"""  # noqa: S608 - a constant
)

# A row of the outbox is either in flight, and is added again, or its attempt is no longer awaited.
_DELETE_OUTBOX_ROWS = text(
    "DELETE FROM saga_engine.outbox WHERE run_id = ANY (CAST(:run_ids AS uuid[]))"
)

_COMMAND_NAMES = text(
    """
    SELECT d.id, s.step ->> 'name', s.step ->> 'command', s.step ->> 'compensation'
    FROM saga_engine.definition AS d, jsonb_array_elements(d.document -> 'steps') AS s(step)
    WHERE d.id IN (
        SELECT r.definition_id FROM saga_engine.run AS r
        WHERE r.run_id = ANY (CAST(:run_ids AS uuid[]))
            AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid))"""
)

# `claimed_at` is -infinity: the duty claims the row at once, and the age of the outbox does not
# rise.
_ADD_TO_OUTBOX = text(
    """
    INSERT INTO saga_engine.outbox (run_id, due_at, version, attempt, saga, step, direction,
        command, idempotency_key, payload, claimed_at)
    SELECT o.run_id, clock_timestamp() + o.timeout, o.version, o.attempt, o.saga, o.step,
        o.direction, o.command, o.key, o.payload::json, '-infinity'
    FROM unnest(CAST(:run_id AS uuid[]), CAST(:timeout AS interval[]),
        CAST(:version AS integer[]), CAST(:attempt AS integer[]), CAST(:saga AS text[]),
        CAST(:step AS text[]), CAST(:direction AS text[]), CAST(:command AS text[]),
        CAST(:idempotency_key AS text[]), CAST(:payload AS text[])) WITH ORDINALITY
        AS o(run_id, timeout, version, attempt, saga, step, direction, command, key, payload,
            ordinal)
    ORDER BY o.ordinal"""
)

# A minute more than the timeout, because the workers may have yet to be started.
_POSTPONE_WAKE = text(
    """
    UPDATE saga_engine.run AS r
    SET wake_at = greatest(r.wake_at, f.due_at + interval '1 minute')
    FROM (
        SELECT o.run_id, min(o.due_at) AS due_at FROM saga_engine.outbox AS o
        WHERE o.run_id = ANY (CAST(:run_ids AS uuid[])) GROUP BY o.run_id) AS f
    WHERE r.run_id = f.run_id AND r.run_id = ANY (CAST(:run_ids AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)"""
)
