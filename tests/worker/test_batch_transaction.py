"""Others commit between two statements of a batch: what it looks for is found all the same."""

from collections import Counter
from uuid import UUID

import pytest

from saga_engine.decider.triggers import Cancel, Start, serialize_trigger
from saga_engine.identifiers import uuid7
from saga_engine.payload.encryption import NO_ENCRYPTION
from saga_engine.protocol.answer import Answer, AnswerAddress, AnswerOutcome
from saga_engine.settings import Settings
from saga_engine.store import definitions, journal, pending_requests, runs
from saga_engine.store.database import Database
from saga_engine.store.pending_requests import NewRequest
from saga_engine.telemetry.events import Emitter
from saga_engine.worker.admission import Admission
from saga_engine.worker.batch_transaction import BatchTransaction
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.flush import flush_changes
from saga_engine.worker.loops import register_sagas
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.work_item import StatusQuery, WorkBatch, WorkItem
from tests.kit.parcels import parcels

SETTINGS = Settings()
TO = AnswerAddress("client", "question")


def start(run_id):
    return Start(run_id, None, {})


def outcomes(answers):
    return [answer.outcome for answer in answers]


class Interrupted:
    """A transaction right before one of whose statements something else happens."""

    def __init__(self, tx, statement, meanwhile):
        self._tx = tx
        self._statement = statement
        self._meanwhile = meanwhile

    async def execute(self, statement, *arguments):
        if statement is self._statement and self._meanwhile:
            await self._meanwhile()
        return await self._tx.execute(statement, *arguments)


class Observed:
    """A transaction that keeps the text of its statements."""

    def __init__(self, tx):
        self._tx = tx
        self.statements = []

    async def execute(self, statement, *arguments):
        self.statements.append(str(statement))
        return await self._tx.execute(statement, *arguments)


class Desk:
    """Takes batches, as a worker does."""

    def __init__(self, database, catalogue):
        self.database = database
        self._catalogue = catalogue

    async def take(self, intake, *, interrupted_before=None, meanwhile=None):
        """Decide and commit; what the batch answers."""
        async with self.database.transaction() as tx:
            return await self._take(Interrupted(tx, interrupted_before, meanwhile), intake)

    async def begin_the_one_that_waits(self):
        """Its turn has come: its start leaves the inbox and is a run."""
        async with self.database.transaction() as tx:
            turns, ids = {"parcel": 1}, self._catalogue.ids
            [item] = await pending_requests.take_starts(tx, turns, definition_ids=ids, limit=1)
            await self._take(
                tx,
                WorkBatch(
                    [
                        WorkItem(
                            run_id=item.run_id, trigger=start(item.run_id), saga="parcel", version=1
                        )
                    ]
                ),
            )

    async def _take(self, tx, intake):
        ledger = ChangeSet(await runs.database_now(tx), Counter())
        admission = Admission(self._catalogue, SETTINGS)
        batch = BatchTransaction(tx, self._catalogue, admission, ledger, SETTINGS)
        await batch.process(intake, wait_for_locks=True)
        await flush_changes(tx, ledger, SETTINGS)
        return [answer for _, answer in ledger.after_commit.answers]


@pytest.fixture
async def desk(migrated_url):
    async with Database(migrated_url, SETTINGS) as database:
        registered = await register_sagas(database, [parcels()], NO_ENCRYPTION, Emitter(), SETTINGS)
        yield Desk(database, registered.registry)


@pytest.fixture
async def waiting(desk):
    """The id of a run whose start waits."""
    run_id = str(uuid7())
    kind, body = serialize_trigger(start(run_id))
    async with desk.database.transaction() as tx:
        await pending_requests.record(
            tx, [NewRequest(kind, run_id, body, saga="parcel", version=1)]
        )
    return run_id


async def test_a_cancel_finds_a_run_that_begins_while_it_is_looked_for(desk, waiting):
    cancel = WorkItem(run_id=waiting, trigger=Cancel("Ada", "too late"), answer_to=TO)
    answers = await desk.take(
        WorkBatch([cancel]),
        interrupted_before=pending_requests._FIND_AND_LOCK_STARTS,
        meanwhile=desk.begin_the_one_that_waits,
    )
    assert outcomes(answers) == [AnswerOutcome.ACCEPTED]
    async with desk.database.transaction() as tx:
        kinds = [each.type for each in await journal.read(tx, waiting)]
    assert "run_stopping" in kinds


async def test_whoever_asks_hears_of_a_run_that_begins_while_it_is_looked_for(desk, waiting):
    answers = await desk.take(
        WorkBatch(status_queries=[StatusQuery(waiting, TO)]),
        interrupted_before=pending_requests._FIND_STARTS,
        meanwhile=desk.begin_the_one_that_waits,
    )
    assert outcomes(answers) == [AnswerOutcome.EXISTING]


async def test_whoever_asks_a_worker_without_the_definition_hears_of_the_run_that_waits(
    desk, waiting
):
    other = Desk(desk.database, SagaRegistry({}, NO_ENCRYPTION))
    [answer] = await other.take(WorkBatch(status_queries=[StatusQuery(waiting, TO)]))
    assert (answer.outcome, answer.version) == (AnswerOutcome.EXISTING, 1)


async def test_of_a_start_without_a_version_none_is_told_before_it_begins(desk):
    """The newest on record may not be the one of the worker that begins it."""
    run_id = str(uuid7())
    kind, body = serialize_trigger(start(run_id))
    async with desk.database.transaction() as tx:
        await definitions.register(tx, [parcels(version=2)])
        await pending_requests.record(tx, [NewRequest(kind, run_id, body, saga="parcel")])
    [answer] = await desk.take(WorkBatch(status_queries=[StatusQuery(run_id, TO)]))
    assert answer == Answer(AnswerOutcome.EXISTING, UUID(run_id))


async def test_a_start_of_an_unknown_saga_reads_no_documents(desk):
    asked = WorkItem(
        run_id=str(uuid7()), trigger=Start(str(uuid7()), None, {}), saga="unknown", answer_to=TO
    )
    async with desk.database.transaction() as tx:
        observed = Observed(tx)
        answers = await desk._take(observed, WorkBatch([asked]))
    assert outcomes(answers) == [AnswerOutcome.UNKNOWN_SAGA]
    [looked_up] = [each for each in observed.statements if "saga_engine.definition" in each]
    assert "document" not in looked_up
    assert ":names" in looked_up
