"""The gauges of the backlog show the last count."""

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.telemetry import events


def test_series_of_deleted_rows_disappear_from_the_gauges(observed):
    observed.emit(events.BacklogCounted())

    assert observed.value("saga_runs", saga="place-order", status="running") == 0
    assert observed.value("saga_incidents_open", saga="place-order", cause="", step="") == 0
    gone = {"saga": "place-order", "cause": "step_failed", "step": "charge"}
    assert observed.value("saga_incidents_open", **gone) is None
    assert observed.value("saga_dead_letters_open", reason=DeadLetterReason.MALFORMED_JSON) is None


def test_open_incidents_of_unregistered_steps_share_one_series(observed):
    incidents = {("place-order", "step_failed", f"step-{n}"): 2 for n in range(50)}
    observed.emit(events.BacklogCounted(incidents_open=incidents))

    other = {"saga": "place-order", "cause": "step_failed", "step": "other"}
    assert observed.value("saga_incidents_open", **other) == 100
    assert observed.metrics.render()[0].count(b"saga_incidents_open{") == 1


def test_a_process_that_counts_no_backlog_exposes_no_backlog_gauges(exposition):
    assert b"saga_outbox_pending" not in exposition.metrics.render()[0]
