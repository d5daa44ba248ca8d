"""A batch finds what other transactions commit between two of its statements."""

from saga_engine.decider.triggers import Cancel, Start
from saga_engine.identifiers import uuid7
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.store import journal, pending_requests
from saga_engine.worker.work_item import WorkBatch, WorkItem
from tests.worker.batches import ANSWER_TO, outcomes


class RecordingTransaction:
    """A transaction that records the text of its statements."""

    def __init__(self, tx):
        self._tx = tx
        self.statements = []

    async def execute(self, statement, *arguments):
        self.statements.append(str(statement))
        return await self._tx.execute(statement, *arguments)


async def test_a_cancel_finds_a_run_that_starts_during_the_lookup(batch_driver, queued_run_id):
    cancel = WorkItem(run_id=queued_run_id, trigger=Cancel("Ada", "too late"), answer_to=ANSWER_TO)
    answers = await batch_driver.take(
        WorkBatch([cancel]),
        interrupted_before=pending_requests._FIND_AND_LOCK_STARTS,
        meanwhile=batch_driver.start_the_queued_run,
    )
    assert outcomes(answers) == [AnswerOutcome.ACCEPTED]
    async with batch_driver.database.transaction() as tx:
        kinds = [each.type for each in await journal.read(tx, queued_run_id)]
    assert "run_stopping" in kinds


async def test_a_start_of_an_unknown_saga_reads_no_definition(batch_driver):
    asked = WorkItem(
        run_id=str(uuid7()),
        trigger=Start(str(uuid7()), None, {}),
        saga="unknown",
        answer_to=ANSWER_TO,
    )
    async with batch_driver.database.transaction() as tx:
        observed = RecordingTransaction(tx)
        answers = await batch_driver._take(observed, WorkBatch([asked]))
    assert outcomes(answers) == [AnswerOutcome.UNKNOWN_SAGA]
    [looked_up] = [each for each in observed.statements if "saga_engine.definition" in each]
    assert "document" not in looked_up
    assert ":names" in looked_up
