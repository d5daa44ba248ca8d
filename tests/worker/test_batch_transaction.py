"""What a batch writes of a run, and what other transactions commit between its statements."""

from datetime import timedelta

from saga_engine.decider.evolve import replay
from saga_engine.decider.triggers import Cancel, ReplyReceived, Start, WakeUp
from saga_engine.identifiers import uuid7
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.store import due_runs, journal, pending_requests, runs
from saga_engine.store.event_data import deserialize_event
from saga_engine.vocabulary import Direction, Outcome
from saga_engine.worker.work_item import WorkBatch, WorkItem
from tests.worker.batches import ANSWER_TO, outcomes, start


class RecordingTransaction:
    """A transaction that records the text of its statements."""

    has_started = True

    def __init__(self, tx):
        self._tx = tx
        self.statements = []

    async def begin(self):
        """It has started."""

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


def starting(run_id):
    return WorkItem(
        run_id=run_id, trigger=start(run_id), saga="parcel", version=1, message_id="start"
    )


def reply(run_id, outcome, step="pack", direction=Direction.ACTION, attempt=1):
    trigger = ReplyReceived(
        step=step, direction=direction, attempt=attempt, outcome=outcome, body={}
    )
    return WorkItem(run_id=run_id, trigger=trigger, message_id=f"{step} {outcome}")


async def stored(batch_driver, run_id):
    """A run's row and its journal."""
    async with batch_driver.database.transaction() as tx:
        found = await runs.read(tx, [run_id])
        return found[run_id], await journal.read(tx, run_id)


async def test_all_decisions_of_a_batch_about_a_run_are_one_row_of_its_journal(batch_driver):
    run_id, other_id = str(uuid7()), str(uuid7())
    cancel = WorkItem(run_id=run_id, trigger=Cancel("Ada", "too late"), message_id="cancel")
    await batch_driver.take(WorkBatch([starting(run_id), starting(other_id), cancel]))
    run, entries = await stored(batch_driver, run_id)
    assert run.revision == 1
    assert [(each.revision, each.type, each.metadata["causation_id"]) for each in entries] == [
        (1, "run_started", "start"),
        (1, "attempt_started", "start"),
        (1, "run_stopping", "cancel"),
    ]
    await batch_driver.take(
        WorkBatch(
            [
                reply(run_id, Outcome.SUCCEEDED),
                reply(other_id, Outcome.SUCCEEDED),
                reply(run_id, Outcome.SUCCEEDED, direction=Direction.COMPENSATION),
            ]
        )
    )
    run, entries = await stored(batch_driver, run_id)
    assert (run.revision, run.run.status) == (2, "compensated")
    assert [each.revision for each in entries] == [1] * 3 + [2] * (len(entries) - 3)
    positions = [each.position for each in entries]
    assert positions[3:] == list(range(positions[3], positions[3] + len(entries) - 3))
    assert replay(deserialize_event(each.type, each.data) for each in entries) == run.run


async def test_a_batch_that_decides_nothing_about_a_run_keeps_its_revision(batch_driver):
    run_id = str(uuid7())
    await batch_driver.take(WorkBatch([starting(run_id)]))
    before = await stored(batch_driver, run_id)
    await batch_driver.take(WorkBatch([reply(run_id, Outcome.SUCCEEDED, attempt=7)]))
    assert await stored(batch_driver, run_id) == before


async def test_a_timer_that_was_early_appends_a_row_and_moves_to_the_next_time(batch_driver):
    run_id = str(uuid7())
    await batch_driver.take(WorkBatch([starting(run_id)]))
    before, entries = await stored(batch_driver, run_id)
    async with batch_driver.database.transaction() as tx:
        await due_runs.defer_wake(tx, run_id, timedelta(seconds=-1))
    await batch_driver.take(WorkBatch([WorkItem(run_id=run_id, trigger=WakeUp())]))
    after, entries_after = await stored(batch_driver, run_id)
    assert (after.revision, after.wake_at, after.run) == (2, before.wake_at, before.run)
    assert entries_after == entries
