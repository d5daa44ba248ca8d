"""The end of a run is published only where a client listens, and to every client that does."""

from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import pytest

from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.decider.events import RunCompensated
from saga_engine.identifiers import uuid7
from saga_engine.protocol.answer import RUN_FINISHED_TYPE, decode_client_message
from saga_engine.protocol.run_result import RunResult
from saga_engine.protocol.topology import ENGINE_TOPOLOGY, EVENTS, Binding, client_topology
from saga_engine.settings import Settings
from saga_engine.store.engine_identity import TokenKeys
from saga_engine.telemetry.events import Emitter, MessagesPublished
from saga_engine.vocabulary import ConnectionRole
from saga_engine.worker.change_set import AfterCommit, AppliedDecision
from saga_engine.worker.listeners import BATCHES_WITHOUT_PROBE
from saga_engine.worker.outbox_publisher import OutboxPublisher
from tests.kit.connections import open_connection, take_exactly
from tests.kit.events import EventRecorder
from tests.worker.steps import NOW, UNDONE

QUEUE = "saga.client.listener"
LONGEST_NAME = "s" * 209  # with the run id it is a routing key of 255 bytes


class FinishedRuns:
    """Publishes batches of finished runs, and counts what they send to clients."""

    def __init__(self, publisher: Publisher) -> None:
        keys = TokenKeys(signing=b"k" * 32, accepted=(b"k" * 32,))
        self._events = EventRecorder()
        self._publisher = OutboxPublisher(publisher, keys, 4_000_000, Emitter(self._events))

    @property
    def sent_count(self) -> int:
        """Messages for clients that were published so far, without the questions to the broker."""
        published = self._events.matching(MessagesPublished, exchange=EVENTS)
        return sum(each.messages for each in published)

    async def publish(
        self, count: int, saga: str = "parcel", last_run_id: UUID | None = None
    ) -> list[UUID]:
        """Publish the end of *count* runs as one batch; return their ids."""
        run_ids = [uuid7() for _ in range(count - 1)] + [last_run_id or uuid7()]
        runs = [replace(UNDONE, run_id=str(run_id), saga=saga) for run_id in run_ids]
        decisions = [
            AppliedDecision(before=None, after=run, events=[RunCompensated(NOW)], work_item=None)
            for run in runs
        ]
        await self._publisher.publish_batch(AfterCommit(decisions=decisions))
        return run_ids


@pytest.fixture
async def finished_runs(broker_url):
    async with open_connection(
        broker_url, ConnectionRole.PUBLISH, topology=ENGINE_TOPOLOGY
    ) as connection:
        yield FinishedRuns(Publisher(connection))


@asynccontextmanager
async def listener(broker_url, binding_key):
    """A client whose queue is bound to the ends of runs."""
    async with (
        open_connection(broker_url, topology=client_topology(QUEUE)) as connection,
        Consumer(connection, [QUEUE]) as consumer,
    ):
        await consumer.bind(Binding(QUEUE, EVENTS, binding_key))
        yield consumer


async def take_finished(consumer, count):
    """The ids of the next runs whose end a listener gets."""
    run_ids: list[UUID] = []
    while len(run_ids) < count:
        [delivery] = await take_exactly(consumer, 1)
        if delivery.type == RUN_FINISHED_TYPE:
            finished = decode_client_message(delivery, Settings())
            assert isinstance(finished, RunResult)
            run_ids.append(finished.run_id)
    return run_ids


async def test_nothing_is_sent_for_runs_that_no_client_listens_for(finished_runs):
    await finished_runs.publish(100)
    await finished_runs.publish(100)
    assert finished_runs.sent_count == 0


async def test_a_client_that_listens_for_a_saga_gets_the_end_of_each_run(finished_runs, broker_url):
    await finished_runs.publish(10)
    async with listener(broker_url, "finished.*.parcel") as consumer:
        run_ids = await finished_runs.publish(10)
        assert await take_finished(consumer, 10) == run_ids


async def test_a_client_that_listens_for_one_run_gets_its_end_among_many(finished_runs, broker_url):
    run_id = uuid7()
    async with listener(broker_url, f"finished.{run_id}.#") as consumer:
        await finished_runs.publish(150, saga=LONGEST_NAME, last_run_id=run_id)
        assert await take_finished(consumer, 1) == [run_id]


async def test_the_end_of_a_few_runs_is_sent_without_asking(finished_runs, broker_url):
    async with listener(broker_url, "finished.#") as consumer:
        run_ids = await finished_runs.publish(3)
        deliveries = await take_exactly(consumer, 3)
    assert [UUID(each.routing_key.split(".")[1]) for each in deliveries] == run_ids


async def test_the_broker_is_asked_again_after_the_last_listener_has_gone(
    finished_runs, broker_url
):
    async with listener(broker_url, "finished.#"):
        await finished_runs.publish(10)
    for _ in range(BATCHES_WITHOUT_PROBE):
        await finished_runs.publish(10)
    before = finished_runs.sent_count
    await finished_runs.publish(10)
    assert finished_runs.sent_count == before
