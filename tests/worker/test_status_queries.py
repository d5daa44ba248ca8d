"""Answers to clients that ask for the status of a run."""

from uuid import UUID

from saga_engine.identifiers import uuid7
from saga_engine.payload.encryption import NO_ENCRYPTION
from saga_engine.protocol.answer import Answer, AnswerOutcome
from saga_engine.store import definitions, pending_requests
from saga_engine.store.pending_requests import NewRequest
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.work_item import StatusQuery, WorkBatch
from tests.kit.parcels import parcels
from tests.worker.batches import ANSWER_TO, BatchDriver, outcomes, start


async def test_a_status_query_finds_a_run_that_starts_during_the_lookup(
    batch_driver, queued_run_id
):
    answers = await batch_driver.take(
        WorkBatch(status_queries=[StatusQuery(queued_run_id, ANSWER_TO)]),
        interrupted_before=pending_requests._FIND_STARTS,
        meanwhile=batch_driver.start_the_queued_run,
    )
    assert outcomes(answers) == [AnswerOutcome.EXISTING]


async def test_a_worker_without_the_definition_knows_a_queued_run(batch_driver, queued_run_id):
    other = BatchDriver(batch_driver.database, SagaRegistry({}, NO_ENCRYPTION))
    [answer] = await other.take(WorkBatch(status_queries=[StatusQuery(queued_run_id, ANSWER_TO)]))
    assert (answer.outcome, answer.run.version) == (AnswerOutcome.EXISTING, 1)


async def test_a_stored_start_without_a_version_has_no_status_yet(batch_driver):
    """The worker that starts it may have another version than the newest on record."""
    run_id = str(uuid7())
    kind, body = serialize_trigger(start(run_id))
    async with batch_driver.database.transaction() as tx:
        await definitions.register(tx, [parcels(version=2)])
        await pending_requests.record(
            tx, [NewRequest(kind=kind, run_id=run_id, body=body, saga="parcel")]
        )
    [answer] = await batch_driver.take(WorkBatch(status_queries=[StatusQuery(run_id, ANSWER_TO)]))
    assert answer == Answer(outcome=AnswerOutcome.EXISTING, run_id=UUID(run_id))
