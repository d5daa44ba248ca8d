"""Answers clients that ask for the status of a run."""

from collections.abc import Sequence
from uuid import UUID

from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.protocol.run_result import RunResult
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.vocabulary import Status
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.work_item import StatusQuery


async def answer_status_queries(
    tx: StoreTransaction, changes: ChangeSet, status_queries: Sequence[StatusQuery]
) -> None:
    """Answer with the status of each run; a queued start counts as a running run."""
    statuses = await tx.read_statuses({each.run_id for each in status_queries})
    unknown = {each.run_id for each in status_queries} - statuses.keys()
    queued_starts = changes.queued_starts() | await tx.find_starts(unknown)
    for run_id, start in queued_starts.items():
        if start.version is not None:
            statuses[run_id] = RunResult(
                run_id=UUID(run_id),
                status=Status.RUNNING,
                saga=start.saga,
                version=start.version,
                key=start.key,
            )
    # A run may have started between the two statements above.
    statuses |= await tx.read_statuses(unknown - statuses.keys())
    for status_query in status_queries:
        status = statuses.get(status_query.run_id)
        is_known = status is not None or status_query.run_id in queued_starts
        outcome = AnswerOutcome.EXISTING if is_known else AnswerOutcome.UNKNOWN_RUN
        address, run_id = status_query.answer_to, status_query.run_id
        changes.answer(address, outcome, run_id, status, is_decided=False)
