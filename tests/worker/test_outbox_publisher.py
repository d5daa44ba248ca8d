"""What is published after a commit."""

import json
from collections.abc import Sequence
from dataclasses import replace

from saga_engine.amqp.publisher import Publisher
from saga_engine.decider.events import RunCompensated, RunCompensating
from saga_engine.decider.run import CompensationCause
from saga_engine.decider.triggers import CommandUnroutable, ReplyReceived
from saga_engine.identifiers import uuid7
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.reply import encode_reply
from saga_engine.store.engine_identity import TokenKeys
from saga_engine.store.outbox import OutboxRow
from saga_engine.telemetry.events import Emitter
from saga_engine.vocabulary import Command, CompensationCode, Direction, Outcome, Status
from saga_engine.worker.change_set import AppliedDecision
from saga_engine.worker.outbox_publisher import OutboxPublisher, _finished_runs
from tests.worker.steps import NOW, UNDONE


async def test_an_answer_is_sent_without_a_result_that_is_too_large(engine):
    worker, participant, client = (
        await engine.start_worker(max_body_bytes=4000),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    long = {"did": "x" * 3000}
    for name in ("parcel.pack", "parcel.send"):
        participant.reply_makers[name] = lambda command: [_reply(command, long)]
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    answer = await client.call("status", run_id=run_id)
    assert (answer.run.status, answer.run.result) == ("completed", None)


def _reply(command, body):
    return encode_reply(command, Outcome.SUCCEEDED, json.dumps(body).encode())


BACK = replace(UNDONE, status=Status.COMPENSATING, finished_at=None)


ENDS = AppliedDecision(before=BACK, after=UNDONE, events=[RunCompensated(NOW)], work_item=None)


GOES_ON = AppliedDecision(
    before=UNDONE,
    after=BACK,
    events=[RunCompensating(CompensationCause(code=CompensationCode.LATE_SUCCESS, step="pack"))],
    work_item=None,
)


def test_a_finished_run_is_published():
    assert _finished_runs([ENDS]) == [UNDONE]


def test_a_run_reopened_in_the_same_transaction_is_not_published_as_finished():
    assert _finished_runs([ENDS, GOES_ON]) == []


def test_a_run_that_finished_twice_is_published_once():
    assert _finished_runs([ENDS, GOES_ON, ENDS]) == [UNDONE]


class ScriptedPublisher(Publisher):
    """A publisher whose outcomes are given."""

    def __init__(self, *outcomes: PublishOutcome) -> None:
        self._outcomes = outcomes

    async def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        assert len(messages) == len(self._outcomes)
        return list(self._outcomes)


async def published(*outcomes: PublishOutcome) -> OutboxPublisher:
    """An outbox publisher that has published one row, from id 1, for each outcome."""
    keys = TokenKeys(signing=b"k" * 32, accepted=(b"k" * 32,))
    publisher = OutboxPublisher(ScriptedPublisher(*outcomes), keys, 1_000_000, Emitter())
    command = Command(
        run_id=str(uuid7()),
        saga="parcel",
        version=1,
        step="pack",
        direction=Direction.ACTION,
        attempt=1,
        name="parcel.pack",
        idempotency_key="key",
        payload={},
        deadline=NOW,
    )
    rows = [OutboxRow(outbox_id, command, NOW) for outbox_id in range(1, len(outcomes) + 1)]
    assert await publisher.publish_commands(rows) == []
    return publisher


async def test_confirmed_rows_are_taken_once_and_can_be_given_back():
    publisher = await published(PublishOutcome.CONFIRMED, PublishOutcome.CONFIRMED)
    assert publisher.has_confirmed
    assert publisher.take_confirmed() == [1, 2]
    assert publisher.take_confirmed() == []
    publisher.give_back([1, 2])
    assert publisher.take_confirmed() == [1, 2]


async def test_rows_without_a_confirm_stay_in_the_outbox():
    publisher = await published(PublishOutcome.NACKED, PublishOutcome.UNKNOWN)
    assert publisher.take_confirmed() == []
    assert publisher.take_unroutable(10) == []


async def test_unroutable_commands_become_work_items_that_name_their_rows():
    publisher = await published(PublishOutcome.UNROUTABLE, PublishOutcome.UNPUBLISHABLE)
    [unroutable] = publisher.take_unroutable(1)
    assert isinstance(unroutable.trigger, CommandUnroutable)
    [unpublishable] = publisher.take_unroutable(10)
    assert isinstance(unpublishable.trigger, ReplyReceived)
    assert unpublishable.trigger.outcome is Outcome.FAILED
    assert (unroutable.outbox_id, unpublishable.outbox_id) == (1, 2)
    assert publisher.take_confirmed() == [], "the batch that decides them deletes the rows"
