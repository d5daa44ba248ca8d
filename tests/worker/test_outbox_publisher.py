"""What is published after a commit."""

import json
from dataclasses import replace
from datetime import UTC, datetime

from saga_engine.decider.events import RunCompensated, RunCompensating
from saga_engine.decider.run import CompensationCause, Run
from saga_engine.protocol.reply import encode_reply
from saga_engine.vocabulary import CompensationCode, Outcome, Status
from saga_engine.worker.change_set import DecidedEvent
from saga_engine.worker.outbox_publisher import _finished_runs


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
    assert (answer.status, answer.result) == ("completed", None)


def _reply(command, body):
    return encode_reply(command, Outcome.SUCCEEDED, json.dumps(body).encode())


NOW = datetime(2026, 11, 25, tzinfo=UTC)


BACK = Run(
    run_id="r-1",
    saga="parcel",
    version=1,
    fingerprint="f",
    key=None,
    input={},
    started_at=NOW,
    deadline=None,
    status=Status.COMPENSATING,
)


UNDONE = replace(BACK, status=Status.COMPENSATED, finished_at=NOW)


ENDS = DecidedEvent(
    before=BACK, after=UNDONE, revision=5, event=RunCompensated(NOW), work_item=None
)


GOES_ON = DecidedEvent(
    before=UNDONE,
    after=BACK,
    revision=6,
    event=RunCompensating(CompensationCause(code=CompensationCode.LATE_SUCCESS, step="pack")),
    work_item=None,
)


def test_a_finished_run_is_published():
    assert _finished_runs([ENDS]) == [UNDONE]


def test_a_run_reopened_in_the_same_transaction_is_not_published_as_finished():
    assert _finished_runs([ENDS, GOES_ON]) == []


def test_a_run_that_finished_twice_is_published_once():
    assert _finished_runs([ENDS, GOES_ON, ENDS]) == [UNDONE]
