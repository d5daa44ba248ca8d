"""Which event changes which metric."""

import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from saga_engine.telemetry import events
from saga_engine.telemetry.metric_catalogue import METRIC_CATALOGUE
from saga_engine.vocabulary import (
    ConnectionRole,
    ConnectionState,
    Direction,
    Outcome,
    Program,
)
from tests.telemetry.exposition import Exposition, promtool

ORDERS = {"feed": "orders", "sink": "exchange"}

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def test_promtool_accepts_the_exposition(observed):
    checked = subprocess.run(
        [promtool(), "check", "metrics"],
        input=observed.metrics.render()[0],
        capture_output=True,
        check=False,
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_each_metric_has_its_kind_and_help(observed):
    shown = {family.name: family for family in families(observed.metrics.render()[0].decode())}

    for metric in METRIC_CATALOGUE:
        family = shown[metric.name.removesuffix("_total")]
        assert family.type == metric.kind
        assert family.documentation == metric.help
        assert family.samples, metric.name
    ours = {name for name in shown if name.startswith("saga_")}
    assert ours == {metric.name.removesuffix("_total") for metric in METRIC_CATALOGUE}


def test_openmetrics_is_rendered_on_request(observed):
    body, kind = observed.metrics.render(OPENMETRICS)

    assert kind.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert {family.name for family in open_families(body.decode())} >= {"saga_runs_started"}


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=x", "\x00;;,=", "a" * 10_000])
def test_the_text_format_is_the_default(observed, accept):
    assert observed.metrics.render(accept)[1].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("saga_runs_started_total", {"saga": "place-order", "version": "1"}, 1),
        ("saga_runs_finished_total", {"saga": "place-order", "outcome": "completed"}, 1),
        ("saga_run_duration_seconds_sum", {"saga": "place-order", "outcome": "completed"}, 0.25),
        ("saga_runs_compensating_total", {"saga": "place-order", "cause": "rejected"}, 1),
        (
            "saga_step_attempts_total",
            {
                "saga": "place-order",
                "step": "reserve",
                "direction": "action",
                "outcome": "succeeded",
            },
            1,
        ),
        (
            "saga_step_duration_seconds_count",
            {"saga": "place-order", "step": "reserve", "direction": "action"},
            1,
        ),
        (
            "saga_step_retries_total",
            {"saga": "place-order", "step": "reserve", "direction": "action"},
            1,
        ),
        ("saga_incidents_opened_total", {"saga": "place-order", "cause": "step_failed"}, 1),
        ("saga_operator_actions_total", {"action": "cancel", "outcome": "accepted"}, 1),
        ("saga_messages_ignored_total", {"reason": "late"}, 1),
        ("saga_messages_held_total", {}, 1),
        ("saga_dead_letters_total", {"queue": "saga.replies", "reason": "malformed_json"}, 1),
        ("saga_batch_size_sum", {}, 40),
        ("saga_batch_duration_seconds_sum", {"phase": "commit"}, 0.004),
        (
            "saga_messages_published_total",
            {"exchange": "saga.commands", "outcome": "confirmed"},
            40,
        ),
        ("saga_messages_consumed_total", {"queue": "saga.replies"}, 40),
        ("saga_messages_redelivered_total", {"queue": "saga.replies"}, 3),
        ("saga_broker_connected", {"connection": "publish"}, 1),
        ("saga_broker_connected", {"connection": "consume"}, 0),
        ("saga_db_errors_total", {"operation": "batch"}, 1),
        ("saga_internal_errors_total", {"operation": "decide"}, 1),
        ("saga_process_ready", {}, 0),
        (
            "saga_handler_duration_seconds_count",
            {"command": "payment.charge", "outcome": "succeeded"},
            1,
        ),
        ("saga_barrier_hits_total", {"command": "payment.charge", "reason": "repeated"}, 1),
        ("saga_handler_failures_total", {"command": "payment.charge"}, 1),
        ("saga_handlers_abandoned_total", {"command": "payment.charge"}, 1),
        ("saga_events_appended_total", {}, 20),
        ("saga_event_horizon_age_seconds", {}, 1.5),
        ("saga_projection_lag_events", {"projection": "orders"}, 7),
        ("saga_projection_lag_seconds", {"projection": "orders"}, 0.5),
        ("saga_projection_state", {"projection": "orders", "state": "active"}, 1),
        ("saga_projection_state", {"projection": "orders", "state": "stopped"}, 0),
        ("saga_projection_events_total", {"projection": "orders"}, 50),
        ("saga_projection_batch_duration_seconds_sum", {"projection": "orders"}, 0.02),
        ("saga_projection_failures_total", {"projection": "orders"}, 2),
        ("saga_feed_lag_events", ORDERS, 8),
        ("saga_feed_lag_seconds", ORDERS, 0.75),
        ("saga_feed_state", {**ORDERS, "state": "active"}, 1),
        ("saga_feed_state", {**ORDERS, "state": "stopped"}, 0),
        ("saga_feed_waiting_for_sink", ORDERS, 1),
        ("saga_feed_waiting_streams", ORDERS, 2),
        ("saga_feed_events_total", {**ORDERS, "outcome": "published"}, 50),
        ("saga_feed_events_total", {**ORDERS, "outcome": "skipped"}, 3),
        ("saga_feed_failures_total", ORDERS, 1),
        ("saga_event_loop_lag_seconds_count", {}, 1),
        ("saga_runs", {"saga": "place-order", "status": "running"}, 3),
        ("saga_runs", {"saga": "place-order", "status": "compensating"}, 0),
        ("saga_oldest_run_age_seconds", {"saga": "place-order"}, 8.5),
        ("saga_timers_pending", {}, 9),
        (
            "saga_incidents_open",
            {"saga": "place-order", "cause": "step_failed", "step": "charge"},
            1,
        ),
        ("saga_dead_letters_open", {"reason": "malformed_json"}, 2),
        ("saga_messages_awaiting_definition", {}, 4),
        ("saga_starts_awaiting_admission", {"saga": "place-order"}, 6),
        ("saga_crash_suspects", {}, 3),
        ("saga_schema_breaks_total", {}, 1),
        ("saga_user_code_contained_total", {}, 1),
        ("saga_watchdogs_lost_total", {}, 1),
        ("saga_user_code_failures_total", {"saga": "place-order", "step": "charge"}, 1),
        ("saga_starts_stranded", {"saga": "place-order"}, 2),
        ("saga_outbox_pending", {}, 5),
        ("saga_outbox_oldest_age_seconds", {}, 6.5),
        ("saga_timer_oldest_overdue_seconds", {}, 7.5),
    ],
)
def test_each_event_changes_its_metric(observed, name, labels, value):
    assert observed.value(name, **labels) == value


def test_the_counters_of_a_registered_saga_start_at_0(exposition):
    exposition.metrics.register_saga("trip", 3, ("book",))

    assert exposition.value("saga_runs_started_total", saga="trip", version="3") == 0
    assert exposition.value("saga_runs_finished_total", saga="trip", outcome="compensated") == 0
    assert exposition.value("saga_runs_compensating_total", saga="trip", cause="unknown") == 0
    step = {"saga": "trip", "step": "book", "direction": "action"}
    assert exposition.value("saga_step_attempts_total", outcome="failed", **step) == 0
    assert exposition.value("saga_step_timeouts_total", **step) == 0


def test_registering_a_saga_again_keeps_its_counters(observed):
    observed.metrics.register_saga("place-order", 1, ("reserve", "charge"))

    assert observed.value("saga_runs_started_total", saga="place-order", version="1") == 1


def test_an_unknown_outcome_counts_as_a_timeout_without_duration(exposition):
    exposition.metrics.register_saga("trip", 1, ("book",))
    labels = {"saga": "trip", "step": "book", "direction": "action"}

    exposition.emit(
        events.AttemptFinished(
            saga="trip",
            step="book",
            direction=Direction.ACTION,
            attempt=1,
            run_id="r",
            outcome=Outcome.UNKNOWN,
            duration_s=30.0,
        )
    )

    assert exposition.value("saga_step_timeouts_total", **labels) == 1
    assert exposition.value("saga_step_attempts_total", outcome="unknown", **labels) == 1
    assert exposition.value("saga_step_duration_seconds_count", **labels) is None


def connection_changed(state: ConnectionState, generation: int) -> events.BrokerConnectionChanged:
    return events.BrokerConnectionChanged(
        connection=ConnectionRole.PUBLISH, state=state, generation=generation
    )


def test_a_reconnect_is_counted_and_an_unblock_is_not(exposition):
    exposition.emit(
        connection_changed(ConnectionState.CONNECTING, 0),
        connection_changed(ConnectionState.CONNECTED, 1),
        connection_changed(ConnectionState.BLOCKED, 1),
    )
    assert exposition.value("saga_broker_connected", connection="publish") == 1
    assert exposition.value("saga_broker_blocked", connection="publish") == 1

    exposition.emit(
        connection_changed(ConnectionState.CONNECTED, 1),
        connection_changed(ConnectionState.CONNECTING, 1),
        connection_changed(ConnectionState.CONNECTED, 2),
    )

    assert exposition.value("saga_broker_blocked", connection="publish") == 0
    assert exposition.value("saga_broker_reconnects_total", connection="publish") == 1


def test_a_process_is_ready_until_its_shutdown_begins(exposition):
    exposition.emit(events.ProcessReady(program=Program.WORKER))
    assert exposition.value("saga_process_ready") == 1

    exposition.emit(events.ProcessStopping(program=Program.WORKER))
    assert exposition.value("saga_process_ready") == 0


def test_failures_of_user_code_are_counted_by_registered_names(exposition):
    exposition.metrics.register_saga("shop", 1, ["charge"])
    assert exposition.value("saga_user_code_failures_total", saga="shop", step="") == 0
    assert exposition.value("saga_user_code_failures_total", saga="shop", step="charge") == 0
    before = exposition.series()
    for saga, step in [("shop", "charge"), ("shop", ""), ("shop", "s1"), ("s2", "s3"), ("s4", "")]:
        exposition.emit(
            events.UserCodeFailed(saga=saga, run_id="r", function="f", problem="", step=step)
        )

    labels = [
        ("shop", "charge"),
        ("shop", ""),
        ("shop", "other"),
        ("other", "other"),
        ("other", ""),
    ]
    for saga, step in labels:
        assert exposition.value("saga_user_code_failures_total", saga=saga, step=step) == 1
    assert exposition.series() == before + 3


def test_two_registries_are_independent(observed):
    other = Exposition()

    assert observed.value("saga_runs_started_total", saga="place-order", version="1") == 1
    assert other.value("saga_runs_started_total", saga="place-order", version="1") is None
