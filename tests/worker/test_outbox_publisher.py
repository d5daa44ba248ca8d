"""What is told once a batch is committed is what the batch has committed."""

from dataclasses import replace
from datetime import UTC, datetime

from saga_engine.decider.events import RunCompensated, RunCompensating
from saga_engine.decider.run import CompensationCause, Run
from saga_engine.vocabulary import Status
from saga_engine.worker.change_set import DecidedEvent
from saga_engine.worker.outbox_publisher import _finished_runs

NOW = datetime(2026, 11, 25, tzinfo=UTC)
BACK = Run("r-1", "parcel", 1, "f", None, {}, NOW, None, status=Status.COMPENSATING)
UNDONE = replace(BACK, status=Status.COMPENSATED, finished_at=NOW)
ENDS = DecidedEvent(
    before=BACK, after=UNDONE, revision=5, event=RunCompensated(NOW), work_item=None
)
GOES_ON = DecidedEvent(
    before=UNDONE,
    after=BACK,
    revision=6,
    event=RunCompensating(CompensationCause("late_success", "pack")),
    work_item=None,
)


def test_an_end_is_told():
    assert _finished_runs([ENDS]) == [UNDONE]


def test_an_end_that_a_late_success_took_back_in_the_same_transaction_is_not_told():
    assert _finished_runs([ENDS, GOES_ON]) == []


def test_an_end_that_came_again_is_told_once():
    assert _finished_runs([ENDS, GOES_ON, ENDS]) == [UNDONE]
