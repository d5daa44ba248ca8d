"""A committed batch is emitted: one telemetry event for each decision, and for each fate."""

from datetime import UTC, datetime, timedelta

from saga_engine.decider.decide import decide
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import ReplyReceived, Start, Trigger
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.telemetry.events import (
    AttemptFinished,
    AttemptSent,
    Emitter,
    InternalErrorCaught,
    MessageDeadLettered,
    MessageHeld,
    MessageIgnored,
    RetryScheduled,
    RunStarted,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.vocabulary import Direction, IgnoredReason, Outcome
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.emit import emit_committed
from saga_engine.worker.work_item import WorkItem, as_delivery
from tests.kit.events import EventRecorder
from tests.kit.parcels import parcels
from tests.kit.work_items import stored_request

NOW = datetime(2026, 11, 15, tzinfo=UTC)
SAGA = parcels()
RUN_ID = "0198c0de-0000-7000-8000-000000000001"


def decided(changes: ChangeSet, before: Run | None, trigger: Trigger) -> Run:
    """Decide a trigger and record the decision."""
    work_item = WorkItem(run_id=RUN_ID, trigger=trigger, message_id="m-1")
    decision = decide(SAGA, before, trigger, changes.now)
    assert decision.run is not None
    changes.record_decision(before, decision.run, decision.events, work_item)
    return decision.run


def emitted(changes: ChangeSet) -> EventRecorder:
    recorder = EventRecorder()
    emit_committed(Emitter(recorder), changes)
    return recorder


def started() -> tuple[ChangeSet, Run]:
    changes = ChangeSet(NOW, {})
    return changes, decided(changes, None, Start(RUN_ID, None, {"sku": "A1"}))


def test_a_start_emits_the_run_and_its_first_attempt():
    changes, _ = started()
    events = emitted(changes)
    assert [type(each) for each in events] == [RunStarted, AttemptSent]
    assert (events[1].saga, events[1].step, events[1].attempt) == ("parcel", "pack", 1)


def test_a_failed_attempt_emits_its_duration_and_its_retry():
    _, run = started()
    later = ChangeSet(NOW + timedelta(seconds=3), {})
    decided(
        later,
        run,
        ReplyReceived(step="pack", direction=Direction.ACTION, attempt=1, outcome=Outcome.FAILED),
    )
    recorder = emitted(later)
    [attempt] = recorder.matching(AttemptFinished, outcome=Outcome.FAILED)
    assert (attempt.duration_s, attempt.message_id) == (3.0, "m-1")
    [retry] = recorder.matching(RetryScheduled)
    assert retry.delay_s > 0


def test_each_fate_is_emitted():
    changes = ChangeSet(NOW, {})
    changes.ignore(WorkItem(run_id="r-1", trigger=Start("r-1", None, {})), IgnoredReason.DUPLICATE)
    held = stored_request(Start(RUN_ID, None, {}))
    changes.await_definition(held)
    changes.dead_letter(held, DeadLetterReason.UNKNOWN_SAGA, "No worker has loaded it.")
    changes.after_commit.internal_errors.append(("r-2", KeyError("a bug")))
    recorder = emitted(changes)
    assert recorder.matching(MessageIgnored, run_id="r-1", reason=IgnoredReason.DUPLICATE)
    assert recorder.matching(MessageHeld, run_id=held.run_id)
    delivery = as_delivery(held)
    assert delivery is not None
    [dead_letter] = recorder.matching(MessageDeadLettered, reason=DeadLetterReason.UNKNOWN_SAGA)
    assert (dead_letter.queue, dead_letter.problem) == (delivery.queue, "No worker has loaded it.")
    assert recorder.matching(InternalErrorCaught, operation=Operation.DECIDE, run_id="r-2")
