"""
The outbox: commands that were decided and may not be published yet.

Rows are written by the batch that decides (`batch_append`), published after its commit, and deleted
by a later batch once the broker has confirmed them. Rows that a dead worker leaves are claimed when
they are old enough, and published again. So a participant may receive an attempt of a command or of
a compensation twice; it recognizes the idempotency key.

A compensation was sent twice? Look at the journal of the run first (`saga-engine show`). One
`attempt_started`: the same attempt was published again, from here (worker/outbox_duties.py) or by
`recovery`, or RabbitMQ or a redrive delivered it again. Two: a retry, after an `attempt_failed`
(decider/step_in_direction.py), or an operator's, after `incident_resolved` (decider/operator.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson

from saga_engine.decider.commands import is_awaited
from saga_engine.decider.run import Run
from saga_engine.postgres.statement import Transaction, text
from saga_engine.store import runs
from saga_engine.store.byte_limits import UNLIMITED_BYTES
from saga_engine.store.json_column import dumps
from saga_engine.vocabulary import Command, Direction


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One row of the outbox."""

    id: int
    command: Command
    created_at: datetime


class CommandRow(NamedTuple):
    """The columns of a command that is claimed, in the order in which they are read."""

    id: int
    created_at: datetime
    run_id: str
    saga: str
    version: int
    step: str
    direction: str
    attempt: int
    command: str
    idempotency_key: str
    payload: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class StaleCommands:
    """The commands that were claimed, and how many rows were found; the rest were deleted."""

    claimed: list[OutboxRow]
    rows_found: int


@dataclass(frozen=True, slots=True)
class OutboxBacklog:
    """How many rows the outbox has, and the age of the oldest in seconds."""

    pending: int
    oldest_age: float


def command_columns(commands: Sequence[Command]) -> dict[str, list[Any]]:
    """Write commands as rows, in order."""
    return {
        "run_id": [command.run_id for command in commands],
        "due_at": [command.deadline for command in commands],
        "version": [command.version for command in commands],
        "attempt": [command.attempt for command in commands],
        "saga": [command.saga for command in commands],
        "step": [command.step for command in commands],
        "direction": [command.direction.value for command in commands],
        "command": [command.name for command in commands],
        "idempotency_key": [command.idempotency_key for command in commands],
        "payload": [dumps(command.payload) for command in commands],
    }


async def claim_stale(
    tx: Transaction, age: timedelta, limit: int, *, max_bytes: int = UNLIMITED_BYTES
) -> StaleCommands:
    """
    Claim up to *limit* commands that have not been claimed for *age*, oldest first.

    They are not claimed again for *age*, unless this transaction is rolled back. Commands whose
    attempt the run no longer awaits are deleted instead: a participant that receives a command
    after its compensation has to refuse it.

    Args:
        max_bytes: after that many bytes of payloads no further command is claimed; their runs are
            read in parts of that size.
    """
    rows = await tx.execute(_CLAIM_STALE, {"age": age, "limit": limit, "max_bytes": max_bytes})
    found = to_outbox_rows(rows)
    run_ids = {each.command.run_id for each in found}
    obsolete_ids = {
        row_id
        async for part in runs.read_readable(tx, run_ids, max_bytes=max_bytes)
        for stored in part
        for row_id in obsolete_row_ids(stored.run, found)
    }
    if obsolete_ids:
        await tx.execute(_DELETE, {"ids": sorted(obsolete_ids)})
    return StaleCommands([each for each in found if each.id not in obsolete_ids], len(found))


def to_outbox_rows(rows: Iterable[CommandRow]) -> list[OutboxRow]:
    """Make the rows of commands that were read, in the order of their ids."""
    return sorted(map(_outbox_row, rows), key=lambda each: each.id)


def obsolete_row_ids(run: Run, rows: Iterable[OutboxRow]) -> list[int]:
    """Which of the rows are commands of this run that it no longer awaits."""
    return [
        each.id
        for each in rows
        if each.command.run_id == run.run_id and not is_awaited(run, each.command)
    ]


def _outbox_row(row: Iterable[Any]) -> OutboxRow:
    row_id, created_at, run_id, saga, version, step, direction, *others = row
    attempt, name, idempotency_key, payload, due_at = others
    command = Command(
        run_id=run_id,
        saga=saga,
        version=version,
        step=step,
        direction=Direction(direction),
        attempt=attempt,
        name=name,
        idempotency_key=idempotency_key,
        payload=orjson.loads(payload),
        deadline=due_at,
    )
    return OutboxRow(row_id, command, created_at)


async def backlog(tx: Transaction, count_limit: int = 10_000) -> OutboxBacklog:
    """Count the rows of the outbox, up to *count_limit*, and find the age of the oldest."""
    pending, oldest = (await tx.execute(_BACKLOG, {"count_limit": count_limit})).one()
    return OutboxBacklog(pending, oldest)


_DELETE = text("DELETE FROM saga_engine.outbox WHERE id = ANY (CAST(:ids AS bigint[]))")

_CLAIM_STALE = text(
    """
    UPDATE saga_engine.outbox AS o SET claimed_at = clock_timestamp()
    WHERE o.id = ANY (ARRAY(
        SELECT b.id FROM (SELECT f.id, sum(f.size) OVER (ORDER BY f.id) - f.size AS before FROM (
        SELECT id, octet_length(payload::text) AS size FROM saga_engine.outbox
        WHERE coalesce(claimed_at, created_at) <= clock_timestamp() - CAST(:age AS interval)
        ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED) AS f) AS b
        WHERE b.before < :max_bytes))
    RETURNING o.id, o.created_at, o.run_id::text, o.saga, o.version, o.step, o.direction,
        o.attempt, o.command, o.idempotency_key, o.payload::text, o.due_at"""
)

_BACKLOG = text(
    """
    SELECT (SELECT count(*) FROM (SELECT FROM saga_engine.outbox LIMIT :count_limit) AS limited),
        coalesce(extract(epoch FROM clock_timestamp() - (
            SELECT created_at FROM saga_engine.outbox ORDER BY id LIMIT 1)), 0)::float8"""
)
