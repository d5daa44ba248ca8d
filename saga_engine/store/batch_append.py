"""
Appends what a batch has decided, in one statement: the journal and everything that follows from it.

The journal is the fence between workers. A run's revision counts the rows of its journal, and each
row has the revision after the one that was decided on. Of two batches that decided on the same
revision, one inserts its row; the other one has lost the run, and nothing of what it decided about
the run is written. It reads the run again and decides again. A decision that appends nothing counts
only if the run still has the revision that it was decided on.

Executed outside of a transaction, the statement is the transaction: no lock outlasts it. All
transactions lock in one order: business keys (sorted), rows of the journal (by run), rows of runs.
The parts of a statement that write have no order of their own (PostgreSQL manual, 7.8.4), so each
part waits for the result of the one before.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from saga_engine.postgres.statement import Statement, Transaction, text
from saga_engine.store.business_keys import LOCK_ID
from saga_engine.store.journal import NewJournalRow, journal_columns
from saga_engine.store.outbox import OutboxRow, command_columns
from saga_engine.store.runs import FIRST_REVISION, StoredRun, changed_run_columns, new_run_columns
from saga_engine.vocabulary import Command


@dataclass(frozen=True, slots=True)
class NewKey:
    """A business key that is reserved together with the start of its run."""

    saga: str
    key: str
    input_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAppend:
    """
    What a batch has decided about one run.

    Args:
        stored_run: the run after the decisions, with the revision of its new row. FIRST_REVISION
            starts the run. If its snapshot is of that revision too, the snapshot is written.
        journal_row: the new row. A wake-up at which nothing was due has a row without events.
        commands: what is sent because of it.
        new_key: the key that the start reserves, unless it has none or has reserved it before.
        wakes: the timer of the run was processed: it may be moved to a later time.
    """

    stored_run: StoredRun
    journal_row: NewJournalRow
    commands: Sequence[Command] = ()
    new_key: NewKey | None = None
    wakes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAppend:
    """
    What one batch appends.

    Args:
        runs: one entry for each run, in any order.
        unchanged: the revision of each run about which it has decided without appending anything.
        confirmed_ids: rows of the outbox that the broker has confirmed; they are deleted.
        batch_id: random; each of its rows in the journal has it, see `batch_outcome`.
    """

    runs: Sequence[RunAppend] = ()
    unchanged: Mapping[str, int] = field(default_factory=dict)
    confirmed_ids: Sequence[int] = ()
    batch_id: int = field(default_factory=partial(secrets.randbits, 63))


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendResult:
    """
    What was appended.

    `lost` are the runs that have another revision than was decided on, or were dropped; a start is
    lost if its run exists or is pending, or if its key is reserved. `outbox` has the commands of
    the others, `written_bytes` the length of each new row, or of its snapshot.
    """

    lost: frozenset[str]
    outbox: Sequence[OutboxRow]
    written_bytes: Mapping[str, int]
    now: datetime


async def append(tx: Transaction, batch: BatchAppend) -> AppendResult:
    """Append what a batch has decided."""
    arguments = append_arguments(batch)
    row = (await tx.execute(_statement_for(arguments), arguments)).one()
    lost = lost_runs(batch, row.appended, row.outdated)
    return append_result(batch, arguments, lost, row.outbox_ids, row.now)


def _statement_for(arguments: Mapping[str, Any]) -> Statement:
    """The statement that touches no table without need."""
    if arguments["s_run_id"]:
        return _APPEND_WITH_STARTS
    return _APPEND if arguments["j_run_id"] else _APPEND_NOTHING


def append_arguments(batch: BatchAppend) -> dict[str, Any]:
    """Write a batch as arguments of the statement, the rows in the order of their runs."""
    appends = sorted(batch.runs, key=_run_id)
    starts = [each for each in appends if each.stored_run.revision == FIRST_REVISION]
    changes = [each for each in appends if each.stored_run.revision > FIRST_REVISION]
    return {
        **_prefixed("j", journal_columns([each.journal_row for each in appends])),
        **_prefixed("k", _key_columns(starts)),
        **_prefixed("s", new_run_columns([each.stored_run for each in starts])),
        **_prefixed("c", changed_run_columns([each.stored_run for each in changes])),
        "c_wakes": [each.wakes for each in changes],
        **_prefixed("o", command_columns(commands_of(batch))),
        "u_run_id": list(batch.unchanged),
        "u_revision": list(batch.unchanged.values()),
        "confirmed_ids": sorted(batch.confirmed_ids),
        "batch_id": batch.batch_id,
        "first": changes[0].stored_run.run.run_id if changes else None,
        "last": changes[-1].stored_run.run.run_id if changes else None,
    }


def lost_runs(
    batch: BatchAppend, appended: Collection[str], outdated: Collection[str]
) -> frozenset[str]:
    """The runs that got no row, and those that are outdated."""
    return frozenset({_run_id(each) for each in batch.runs}.difference(appended).union(outdated))


def append_result(
    batch: BatchAppend,
    arguments: Mapping[str, Any],
    lost: frozenset[str],
    outbox_ids: Sequence[int],
    now: datetime,
) -> AppendResult:
    """Say what became of a batch that was executed with these arguments."""
    commands = [each for each in commands_of(batch) if each.run_id not in lost]
    pairs = zip(sorted(outbox_ids), commands, strict=True)  # assigned in order, returned in any
    lengths = dict(zip(arguments["j_run_id"], map(len, arguments["j_events"]), strict=True))
    snapshots = zip(arguments["c_run_id"], arguments["c_snapshot"], strict=True)
    lengths |= {run_id: len(snapshot) for run_id, snapshot in snapshots if snapshot is not None}
    return AppendResult(
        lost=lost,
        outbox=[OutboxRow(outbox_id, command, now) for outbox_id, command in pairs],
        written_bytes=lengths,
        now=now,
    )


def _run_id(run_append: RunAppend) -> str:
    return run_append.stored_run.run.run_id


def commands_of(batch: BatchAppend) -> list[Command]:
    """What the batch sends, in the order of its runs."""
    return [command for each in batch.runs for command in each.commands]


def _key_columns(starts: Sequence[RunAppend]) -> dict[str, list[Any]]:
    with_key = [(each, each.new_key) for each in starts if each.new_key is not None]
    return {
        "run_id": [_run_id(each) for each, _ in with_key],
        "saga": [key.saga for _, key in with_key],
        "key": [key.key for _, key in with_key],
        "input_digest": [key.input_digest for _, key in with_key],
    }


def _prefixed(prefix: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{name}": values for name, values in columns.items()}


# The condition on the array is repeated: a plan made while the table was empty must not read
# all pending starts when it is full.
_IS_NEW_RUN = """
    NOT EXISTS (SELECT FROM saga_engine.run AS r WHERE r.run_id = {run_id})
        AND NOT EXISTS (
            SELECT FROM saga_engine.pending_request AS p
            WHERE p.run_id = {run_id} AND p.kind = 'start'
                AND p.run_id = ANY (CAST(:j_run_id AS uuid[])))"""

# A key that another transaction is about to reserve is not waited for: its lock is taken.
_NEW_KEY = f"""
    INSERT INTO saga_engine.business_key (saga, key, run_id, input_digest)
    SELECT k.saga, k.key, k.run_id, k.input_digest
    FROM unnest(CAST(:k_saga AS text[]), CAST(:k_key AS text[]), CAST(:k_run_id AS uuid[]),
        CAST(:k_input_digest AS bytea[])) AS k(saga, key, run_id, input_digest)
    WHERE {_IS_NEW_RUN.format(run_id="k.run_id")}
        AND pg_try_advisory_xact_lock({LOCK_ID.format(saga="k.saga", key="k.key")})
    ORDER BY k.saga, k.key
    ON CONFLICT (saga, key) DO NOTHING
    RETURNING run_id"""  # noqa: S608 - constants

_STARTS_A_RUN = f"""
    CASE WHEN j.run_id = ANY (CAST(:k_run_id AS uuid[]))
        THEN j.run_id = ANY (ARRAY(SELECT n.run_id FROM new_key AS n))
        ELSE {_IS_NEW_RUN.format(run_id="j.run_id")} END"""  # noqa: S608 - constants

# The row before is there unless the run was dropped with its month, or a failover lost it.
_APPENDED_SQL = """
    INSERT INTO saga_engine.journal (run_id, revision, recorded_at, position, batch_id, events)
    SELECT j.run_id, j.revision, j.recorded_at, drawn.first + j.place, CAST(:batch_id AS bigint),
        j.events::jsonb
    FROM saga_engine.draw_positions(CAST(:j_position_count AS integer)) AS drawn(first),
        unnest(CAST(:j_run_id AS uuid[]), CAST(:j_revision AS integer[]),
            CAST(:j_recorded_at AS timestamptz[]), CAST(:j_place AS integer[]),
            CAST(:j_events AS text[])) AS j(run_id, revision, recorded_at, place, events)
    WHERE CASE WHEN j.revision > {first_revision}
        THEN EXISTS (
            SELECT FROM saga_engine.journal AS before
            WHERE before.run_id = j.run_id AND before.revision = j.revision - 1)
        ELSE {starts_a_run} END
    ORDER BY j.run_id
    ON CONFLICT (run_id, revision) DO NOTHING
    RETURNING run_id"""

_IS_APPENDED = "= ANY (ARRAY(SELECT a.run_id FROM appended AS a))"

_STARTED = f"""
    INSERT INTO saga_engine.run (run_id, started_at, finished_at, deadline, wake_at,
        definition_id, status, key, result, cause)
    SELECT s.run_id, s.started_at, s.finished_at, s.deadline, s.wake_at,
        s.definition_id, s.status, s.key, s.result::jsonb, s.cause::jsonb
    FROM unnest(CAST(:s_run_id AS uuid[]), CAST(:s_started_at AS timestamptz[]),
        CAST(:s_finished_at AS timestamptz[]), CAST(:s_deadline AS timestamptz[]),
        CAST(:s_wake_at AS timestamptz[]), CAST(:s_definition_id AS integer[]),
        CAST(:s_status AS text[]), CAST(:s_key AS text[]),
        CAST(:s_result AS text[]), CAST(:s_cause AS text[]))
        AS s(run_id, started_at, finished_at, deadline, wake_at,
            definition_id, status, key, result, cause)
    WHERE s.run_id {_IS_APPENDED}"""  # noqa: S608 - constants

# Times that move later are those of a winner of the fence.
_NEXT_WAKE_AT = """
    CASE
        WHEN c.finished_at IS NOT NULL THEN NULL
        WHEN c.wakes OR r.wake_at <= clock_timestamp() OR r.wake_at IS NULL
            OR c.wake_at < r.wake_at THEN c.wake_at
        ELSE r.wake_at END"""

# Most steps change nothing here: then the row is neither locked nor written. If a claim of the
# timer is committed meanwhile, the timer stays where the claim has moved it; its wake-up follows.
#
# The planner expects ten rows of an unnested parameter and would use a nested loop; the series
# makes it expect a thousand, and hash them. The condition on the array is repeated, so that a plan
# made while the table was empty reads only these rows when it is full.
_CHANGED = f"""
    UPDATE saga_engine.run AS r
    SET status = c.status, finished_at = c.finished_at, wake_at = {_NEXT_WAKE_AT},
        result = c.result::jsonb, cause = c.cause::jsonb,
        snapshot = coalesce(c.snapshot::jsonb, r.snapshot),
        snapshot_revision = CASE
            WHEN c.snapshot IS NULL THEN r.snapshot_revision ELSE c.snapshot_revision END
    FROM ROWS FROM (
        unnest(CAST(:c_run_id AS uuid[]), CAST(:c_status AS text[]),
            CAST(:c_finished_at AS timestamptz[]), CAST(:c_wake_at AS timestamptz[]),
            CAST(:c_result AS text[]), CAST(:c_cause AS text[]), CAST(:c_snapshot AS text[]),
            CAST(:c_snapshot_revision AS integer[]), CAST(:c_wakes AS boolean[])),
        generate_series(1, cardinality(CAST(:c_run_id AS uuid[]))))
        AS c(run_id, status, finished_at, wake_at, result, cause, snapshot, snapshot_revision,
            wakes, ordinal)
    WHERE r.run_id = c.run_id AND c.run_id {_IS_APPENDED}
        AND (r.status <> c.status OR r.finished_at IS DISTINCT FROM c.finished_at
            OR r.cause IS DISTINCT FROM c.cause::jsonb OR c.snapshot IS NOT NULL
            OR r.wake_at IS DISTINCT FROM {_NEXT_WAKE_AT})
        AND r.run_id = ANY (CAST(:c_run_id AS uuid[]))
        AND r.run_id >= CAST(:first AS uuid) AND r.run_id <= CAST(:last AS uuid)"""  # noqa: S608

_QUEUED = f"""
    INSERT INTO saga_engine.outbox (run_id, due_at, version, attempt, saga, step, direction,
        command, idempotency_key, payload)
    SELECT o.run_id, o.due_at, o.version, o.attempt, o.saga, o.step, o.direction,
        o.command, o.key, o.payload::json
    FROM unnest(CAST(:o_run_id AS uuid[]), CAST(:o_due_at AS timestamptz[]),
        CAST(:o_version AS integer[]), CAST(:o_attempt AS integer[]), CAST(:o_saga AS text[]),
        CAST(:o_step AS text[]), CAST(:o_direction AS text[]), CAST(:o_command AS text[]),
        CAST(:o_idempotency_key AS text[]), CAST(:o_payload AS text[])) WITH ORDINALITY
        AS o(run_id, due_at, version, attempt, saga, step, direction, command, key, payload,
            ordinal)
    WHERE o.run_id {_IS_APPENDED}
    ORDER BY o.ordinal
    RETURNING id"""  # noqa: S608 - constants

# Rows that another transaction has locked are skipped: most likely the `outbox_resend` duty is
# about to publish them again, and a batch should not wait for it.
_CONFIRMED = """
    DELETE FROM saga_engine.outbox WHERE id = ANY (ARRAY(
        SELECT id FROM saga_engine.outbox
        WHERE id = ANY (CAST(:confirmed_ids AS bigint[])) FOR UPDATE SKIP LOCKED))"""

_OUTDATED = """
    SELECT u.run_id::text
    FROM unnest(CAST(:u_run_id AS uuid[]), CAST(:u_revision AS integer[])) AS u(run_id, revision)
    WHERE NOT EXISTS (
            SELECT FROM saga_engine.journal AS j
            WHERE j.run_id = u.run_id AND j.revision = u.revision)
        OR EXISTS (
            SELECT FROM saga_engine.journal AS j
            WHERE j.run_id = u.run_id AND j.revision = u.revision + 1)"""

_APPENDED = _APPENDED_SQL.format(first_revision=FIRST_REVISION, starts_a_run="false")

_APPENDED_OR_STARTED = _APPENDED_SQL.format(
    first_revision=FIRST_REVISION, starts_a_run=_STARTS_A_RUN
)

# The columns are computed in their order: the time is that of the end, after every wait.
# `runs_first` reads nothing: PostgreSQL locks the tables of a statement in the order in which they
# appear, and every transaction that locks both tables locks that of the runs first.
_RUNS_FIRST = "SELECT FROM saga_engine.run WHERE false"

_RESULT = f"""
    SELECT ARRAY(SELECT a.run_id::text FROM appended AS a) AS appended,
        ARRAY(SELECT q.id FROM queued AS q) AS outbox_ids,
        ARRAY({_OUTDATED}) AS outdated,
        clock_timestamp() AS now
    WHERE NOT EXISTS (SELECT FROM runs_first)"""  # noqa: S608 - constants

# Without a start the table of pending requests is not touched: timers fire while it is locked.
_APPEND = text(
    f"""
    WITH runs_first AS MATERIALIZED ({_RUNS_FIRST}), appended AS ({_APPENDED}),
        changed AS ({_CHANGED}), queued AS ({_QUEUED}), confirmed AS ({_CONFIRMED})
    {_RESULT}"""
)

_APPEND_NOTHING = text(
    f"""
    WITH runs_first AS MATERIALIZED ({_RUNS_FIRST}), confirmed AS ({_CONFIRMED})
    SELECT CAST('{{}}' AS text[]) AS appended, CAST('{{}}' AS bigint[]) AS outbox_ids,
        ARRAY({_OUTDATED}) AS outdated, clock_timestamp() AS now
    WHERE NOT EXISTS (SELECT FROM runs_first)"""  # noqa: S608 - constants
)

_APPEND_WITH_STARTS = text(
    f"""
    WITH runs_first AS MATERIALIZED ({_RUNS_FIRST}), new_key AS ({_NEW_KEY}),
        appended AS ({_APPENDED_OR_STARTED}), started AS ({_STARTED}), changed AS ({_CHANGED}),
        queued AS ({_QUEUED}), confirmed AS ({_CONFIRMED})
    {_RESULT}"""
)
