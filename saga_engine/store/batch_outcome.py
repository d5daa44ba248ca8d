"""
Whether a batch was committed whose answer was lost, after a cut connection or a timeout.

Each row of the journal has the id of the batch that has appended it. A worker that finds its own
rows goes on as after the answer: it publishes the commands. If there are none, the batch was not
committed, or not yet; it is decided again, and the fence of `batch_append` keeps it from being
applied twice.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from saga_engine.postgres.statement import Transaction, text
from saga_engine.store.batch_append import AppendResult, BatchAppend, commands_of, lost_runs
from saga_engine.store.outbox import OutboxRow


async def read(
    tx: Transaction, batch: BatchAppend, *, outbox_after: int | None
) -> AppendResult | None:
    """
    Read what was appended of a batch, without `written_bytes`; None: nothing was.

    A run that was decided without a row counts as lost, so that it is decided again. A command that
    another worker has published meanwhile is left out.

    Args:
        outbox_after: a row of the outbox that is older than those of the batch. Only later rows are
            read: the cost does not depend on commands that have waited for longer. None: no such
            row is known; no commands are found, and the `outbox_resend` duty publishes them.
    """
    journal_rows = [each.journal_row for each in batch.runs]
    run_ids = [each.run_id for each in journal_rows]
    revisions = [each.revision for each in journal_rows]
    ids = {"run_ids": run_ids, "revisions": revisions, "batch_id": batch.batch_id}
    appended, now = (await tx.execute(_READ_APPENDED, ids)).one()
    if not appended:
        return None
    rows = await tx.execute(_READ_QUEUED, {"run_ids": run_ids, "outbox_after": outbox_after})
    queued = {(key, attempt): row_id for row_id, key, attempt in rows}
    return outcome_of(batch, appended, queued, now)


def outcome_of(
    batch: BatchAppend,
    appended: Collection[str],
    queued: Mapping[tuple[str, int], int],
    now: datetime,
) -> AppendResult:
    """
    Say what became of a batch that has appended rows for some runs.

    Args:
        queued: rows of the outbox by the idempotency key and the attempt of their command.
    """
    lost = lost_runs(batch, appended, batch.unchanged)
    refs = {(each.idempotency_key, each.attempt): each for each in commands_of(batch)}
    return AppendResult(
        lost=lost,
        outbox=[
            OutboxRow(queued[ref], command, now)
            for ref, command in refs.items()
            if ref in queued and command.run_id not in lost
        ],
        written_bytes={},
        now=now,
    )


_READ_APPENDED = text(
    """
    SELECT ARRAY(
            SELECT j.run_id::text
            FROM unnest(CAST(:run_ids AS uuid[]), CAST(:revisions AS integer[]))
                    AS b(run_id, revision)
                JOIN saga_engine.journal AS j USING (run_id, revision)
            WHERE j.batch_id = CAST(:batch_id AS bigint)),
        clock_timestamp()"""
)

_READ_QUEUED = text(
    """
    SELECT o.id, o.idempotency_key, o.attempt FROM saga_engine.outbox AS o
    WHERE o.id > CAST(:outbox_after AS bigint) AND o.run_id = ANY (CAST(:run_ids AS uuid[]))"""
)
