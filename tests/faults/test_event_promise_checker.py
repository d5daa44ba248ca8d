"""
The checker of the fault suite finds each bug of events that is planted here, and nothing otherwise.

Each bug is a small patch of the real code, and loses one turn: as a process that is killed there.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from saga_engine.errors import StoreUnavailable, WrongVersion
from saga_engine.events import ANY, Append, Appended
from saga_engine.events.aggregates import command_handling
from saga_engine.events.event_store import positions, transactional
from saga_engine.events.feeds.feed_batch import FeedBatch
from saga_engine.events.feeds.feed_runner import FeedRunner
from saga_engine.events.projections.event_batch import BatchResult, EventBatch
from saga_engine.events.projections.projection_batch import BatchApplier
from saga_engine.events.read_models.read_model_batch import (
    ReadModelApplier,
    ReadModelBatch,
    apply_range,
)
from saga_engine.message_context import MessageContext
from saga_engine.postgres.statement import Transaction
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings
from tests.faults import event_promise_checker, workload
from tests.faults.environment import FaultEnvironment
from tests.faults.event_promise_checker import EventPromiseChecker
from tests.faults.event_workload import (
    append_effect,
    changed,
    everything,
    metadata,
    recorded_events,
)
from tests.faults.feed_consumer import FeedConsumer, FeedMessage, ReceivedEvents
from tests.faults.table_reader import TableReader
from tests.kit.feeds import running_feeds
from tests.kit.programs import sleep, wait_until_true
from tests.kit.projections import running_projector
from tests.kit.read_models import append_random, running_read_models
from tests.kit.rebuilds import begin
from tests.simulation.bug_patcher import BugPatcher

pytestmark = pytest.mark.rabbitmq

HELD_SECONDS = 0.4  # Readers that ignore the horizon pass an open transaction in that time.


def save_the_checkpoint_before_the_effects(plant: BugPatcher) -> None:
    lost: list[EventBatch] = []

    async def apply(self: BatchApplier, batch: EventBatch) -> BatchResult:
        async with self._lock.at(batch.after) as locked:
            await locked.save(batch.until)
        if batch.events and not lost:
            lost.append(batch)
            raise StoreUnavailable("killed between the two")
        async with self._lock.at(batch.until) as locked:
            await locked.tx.execute(self._plan(batch.events).steps, self._call_limit)
        return BatchResult(batch.until)

    plant.replace(BatchApplier, "apply", apply)


def save_the_checkpoint_after_the_commit(plant: BugPatcher) -> None:
    applied: list[EventBatch] = []

    async def apply(self: BatchApplier, batch: EventBatch) -> BatchResult:
        if not batch.events:
            return BatchResult(batch.after)
        async with self._lock.at(batch.after) as locked:
            await locked.tx.execute(self._plan(batch.events).steps, self._call_limit)
        if self._declaration is recorded_events and not applied:
            applied.append(batch)
            raise StoreUnavailable("killed between the two")
        async with self._lock.at(batch.after) as locked:
            await locked.save(batch.until)
        return BatchResult(batch.until)

    plant.replace(BatchApplier, "apply", apply)


def save_the_checkpoint_of_a_read_model_after_the_commit(plant: BugPatcher) -> None:
    apply_next = ReadModelApplier.apply_next
    lost: list[str] = []

    async def apply_and_lose(self: ReadModelApplier, after: int, window: int) -> ReadModelBatch:
        if self.model.name not in lost:
            async with self.database.transaction() as tx:
                until = await positions.horizon(tx)
                if until > after:
                    lost.append(self.model.name)
                    await apply_range(tx, self.log, self.model, after, until)
        return await apply_next(self, after, window)

    plant.replace(ReadModelApplier, "apply_next", apply_and_lose)


def save_the_position_before_the_confirm(plant: BugPatcher) -> None:
    publish = FeedRunner._publish
    lost: list[FeedBatch] = []

    async def publish_late(self: FeedRunner, batch: FeedBatch, stop: asyncio.Event) -> None:
        if lost:
            return await publish(self, batch, stop)
        lost.append(batch)
        events = batch.next_events()
        batch.record((each, PublishOutcome.CONFIRMED) for each in events)
        await self._save(batch)
        raise StoreUnavailable("killed before the confirm")

    plant.replace(FeedRunner, "_publish", publish_late)


def ignore_the_horizon(plant: BugPatcher) -> None:
    async def horizon(tx: Transaction) -> int:
        return await positions.last_drawn(tx)

    plant.replace(positions, "horizon", horizon)


def append_without_an_expected_version(plant: BugPatcher) -> None:
    async def append_any(
        connection: AsyncConnection,
        *appends: Append,
        context: MessageContext | None = None,
        settings: Settings | None = None,
    ) -> Appended:
        changed_appends = [Append(each.stream, each.events, ANY) for each in appends]
        return await transactional.append_in(
            connection, *changed_appends, context=context, settings=settings
        )

    plant.replace(command_handling, "append_in", append_any)


BUGS = {
    save_the_checkpoint_before_the_effects: ("E2", "E4"),
    save_the_checkpoint_after_the_commit: ("E2",),
    save_the_position_before_the_confirm: ("E5",),
    ignore_the_horizon: ("E2", "E4", "E5"),
    append_without_an_expected_version: ("E1",),
}


@pytest.fixture
async def environment(migrated_url: str, rabbitmq_url: str, engine, tmp_path: Path, monkeypatch):
    """An environment without processes: the database, a reader, and the consumer of the feed."""
    del engine  # the tables are there
    monkeypatch.setattr(event_promise_checker, "CATCH_UP_TIMEOUT_S", 3.0)
    found = FaultEnvironment(None, None, tmp_path, 0)
    found.engine_url = migrated_url
    async with FeedConsumer(rabbitmq_url) as found.feed_consumer, found.table_reader:
        yield found


@pytest.fixture
async def engine(migrated_url: str):
    engine = create_async_engine(migrated_url)
    async with engine.begin() as connection:
        await connection.execute(text(workload.CREATE_EFFECT_LOG))
        await connection.run_sync(metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture(params=[None])
def planted(request, monkeypatch):
    """A bug that is planted before the readers start, or None."""
    if request.param:
        request.param(BugPatcher(monkeypatch))
    return request.param


@pytest.fixture
async def readers(migrated_url: str, rabbitmq_url: str, environment, planted):
    """The projections and the feed, in this process."""
    del environment, planted  # the queue is bound, and the tables are there
    async with AsyncExitStack() as running:
        projections = [changed, recorded_events]
        await running.enter_async_context(running_projector(migrated_url, projections))
        await running.enter_async_context(running_feeds(migrated_url, rabbitmq_url, [everything]))
        yield


async def insert_effect(tx: AsyncConnection, job_id: str, step: str, direction: str) -> None:
    values = {"job_id": job_id, "step": step, "direction": direction}
    await tx.execute(
        text(
            "INSERT INTO effect_log (job_id, step, direction, attempt)"
            " VALUES (:job_id, :step, :direction, 1)"
        ),
        values,
    )


async def perform(
    engine: AsyncEngine, job_id: str, step: str = "reserve", direction: str = "action"
) -> None:
    """What a participant does for a command."""
    async with engine.begin() as tx:
        await insert_effect(tx, job_id, step, direction)
        await append_effect(tx, job_id, step, direction)


async def perform_again(engine: AsyncEngine, job_id: str, step: str) -> None:
    """The same, repeated as by the engine if another step was first."""
    try:
        await perform(engine, job_id, step)
    except WrongVersion:
        await perform(engine, job_id, step)


async def perform_all(engine: AsyncEngine) -> None:
    """Effects of jobs; one stays open while others commit, and two compete for one job."""
    for number in range(5):
        await perform(engine, f"job-{number}")
    await perform(engine, "job-1", direction="compensation")
    async with asyncio.TaskGroup() as tasks, engine.begin() as held:
        await insert_effect(held, "job-held", "reserve", "action")
        await append_effect(held, "job-held", "reserve", "action")
        for number in range(5):
            await perform(engine, f"job-{number}", "charge")
        tasks.create_task(perform_again(engine, "job-held", "charge"))
        await sleep(HELD_SECONDS)


@pytest.mark.usefixtures("readers")
async def test_nothing_is_found_without_a_bug(environment, engine):
    await perform_all(engine)
    checker = EventPromiseChecker(environment)
    assert await checker.check() == []
    assert len(environment.feed_consumer.received.messages) == 26
    checker.forget_checked()
    assert await checker.check() == []


@pytest.mark.usefixtures("readers")
@pytest.mark.parametrize("planted", BUGS, indirect=True, ids=lambda plant: plant.__name__)
async def test_a_planted_bug_is_found(planted, environment, engine):
    await perform_all(engine)
    violations = await EventPromiseChecker(environment).check()
    assert {each.split(":")[0] for each in violations} & set(BUGS[planted]), violations


@pytest.mark.usefixtures("readers")
async def test_events_without_their_effect_are_found(environment, engine):
    async with engine.begin() as tx:
        await append_effect(tx, "job-1", "reserve", "action")
    violations = await EventPromiseChecker(environment).check()
    assert [each.split(":")[0] for each in violations] == ["E3", "E3"]


@pytest.mark.usefixtures("readers")
async def test_a_reader_that_stays_behind_is_found(environment, engine):
    await perform(engine, "job-1")
    pause = "UPDATE saga_engine.projection SET state = 'paused' WHERE name = 'changed'"
    await environment.execute(pause)
    await perform(engine, "job-2")
    violations = await EventPromiseChecker(environment).check()
    assert "E6: 3 s after the last event projection changed is paused" in violations[0]


@pytest.mark.usefixtures("readers")
@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        (None, []),
        (
            save_the_checkpoint_of_a_read_model_after_the_commit,
            ["E4: run_statistics", "E4: step_duration", "E4: failure_cause"],
        ),
    ],
    indirect=["planted"],
    ids=["without a bug", "with a bug"],
)
async def test_a_read_model_that_is_not_what_the_runs_say_is_found(
    migrated_url, environment, database, definition_id, expected
):
    async with running_read_models(migrated_url):
        await append_random(database, Random(0), definition_id, 20)
        violations = await EventPromiseChecker(environment).check()
    assert [": ".join(each.split(": ")[:2]) for each in violations] == expected


@pytest.mark.usefixtures("readers")
async def test_a_wrong_row_of_a_rebuild_is_found(environment, engine, database):
    await perform(engine, "job-1")
    await begin(database, changed.name)
    checker = EventPromiseChecker(environment)
    assert await checker.check() == []
    await environment.execute('UPDATE "type_count~2" SET events = 7')
    assert [each[:16] for each in await checker.check()] == ["E4: type_count~2"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("DELETE FROM stream_view", "tables of different batches"),
        ("WITH deleted AS (DELETE FROM stream_view) DELETE FROM type_count", "after Totals"),
        ("DROP TABLE type_count", "a reader failed: UndefinedTableError"),
    ],
)
async def test_a_read_that_fails_or_sees_less_is_found(environment, change, problem):
    await environment.execute("INSERT INTO type_count VALUES ('one', 3)")
    await environment.execute("INSERT INTO stream_view VALUES ('one', 3, 'one', 3)")
    reader: TableReader = environment.table_reader
    reader.problems.clear()
    before = reader.reads

    async def has_read():
        return reader.reads > before + 1

    await wait_until_true(has_read)
    assert reader.problems == []
    await environment.execute(change)

    async def has_noticed():
        return reader.problems

    await wait_until_true(has_noticed)
    assert problem in reader.problems[0]


def received(*messages: tuple[int, FeedMessage]) -> ReceivedEvents:
    found = ReceivedEvents()
    for position, message in messages:
        found.add(position, message)
    return found


FIRST = FeedMessage("job-1", "id-1", 1)
SECOND = FeedMessage("job-1", "id-2", 2)


def test_repeated_messages_and_other_streams_in_another_order_are_no_problem():
    other = FeedMessage("job-2", "id-3", 3)
    found = received((2, FIRST), (4, SECOND), (3, other), (2, FIRST), (4, SECOND))
    assert not found.problems
    assert found.repetitions == 2


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([(4, SECOND), (2, FIRST)], "E5: job-1 at 2 came after that at 4"),
        ([(2, FIRST), (2, SECOND)], "E5: position 2 has changed"),
        ([(2, FIRST), (4, FIRST)], "E5: id-1 is the id of 2 and 4"),
    ],
)
def test_a_wrong_message_is_found(messages, problem):
    assert received(*messages).problems[0].startswith(problem)
