"""What is counted, under which names, and how few series a stranger can make."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import PublishOutcome
from saga_engine.telemetry import events
from saga_engine.telemetry.metric_catalogue import METRIC_CATALOGUE
from saga_engine.telemetry.metrics import MAX_CODES_PER_LABEL, MAX_SAGAS, Metrics
from saga_engine.vocabulary import BarrierCase, ConnectionState, Direction, Outcome, Status
from tests.telemetry.event_samples import SAMPLES

OPEN = "application/openmetrics-text; version=1.0.0"


class Page:
    """A registry and what it shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def tell(self, *told: events.TelemetryEvent) -> None:
        for fact in told:
            self.metrics(fact)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def series(self, prefix: str = "saga_") -> int:
        text = self.metrics.render()[0].decode()
        return sum(line.startswith(prefix) for line in text.splitlines())


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def told(page: Page) -> Page:
    page.tell(*SAMPLES)
    return page


def promtool() -> str:
    beside = Path(sys.executable).parent / "promtool"
    found = str(beside) if beside.exists() else shutil.which("promtool")
    if found is None:
        missing = "promtool is missing: sh tests/tools/promtool.sh .venv/bin"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def test_promtool_finds_nothing_to_blame(told):
    checked = subprocess.run(
        [promtool(), "check", "metrics"],
        input=told.metrics.render()[0],
        capture_output=True,
        check=False,
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_each_metric_of_the_catalogue_is_shown_with_its_kind_and_help(told):
    shown = {family.name: family for family in families(told.metrics.render()[0].decode())}

    for metric in METRIC_CATALOGUE:
        family = shown[metric.name.removesuffix("_total")]
        assert family.type == metric.kind
        assert family.documentation == metric.help
        assert family.samples, metric.name
    ours = {name for name in shown if name.startswith("saga_")}
    assert ours == {metric.name.removesuffix("_total") for metric in METRIC_CATALOGUE}


def test_openmetrics_is_written_for_who_asks_for_it(told):
    body, kind = told.metrics.render(OPEN)

    assert kind.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert {family.name for family in open_families(body.decode())} >= {"saga_runs_started"}


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=x", "\x00;;,=", "a" * 10_000])
def test_everyone_else_gets_the_text_format(told, accept):
    assert told.metrics.render(accept)[1].startswith("text/plain; version=0.0.4")


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
        ("saga_user_code_contained_total", {}, 1),
        ("saga_watchdogs_lost_total", {}, 1),
        ("saga_user_code_failures_total", {"saga": "place-order", "step": "charge"}, 1),
        ("saga_starts_stranded", {"saga": "place-order"}, 2),
        ("saga_outbox_pending", {}, 5),
        ("saga_outbox_oldest_age_seconds", {}, 6.5),
        ("saga_timer_oldest_overdue_seconds", {}, 7.5),
    ],
)
def test_each_fact_moves_its_metric(told, name, labels, value):
    assert told.value(name, **labels) == value


def test_a_known_saga_begins_at_0_so_that_the_first_event_shows_in_a_rate(page):
    page.metrics.register_saga("trip", 3, ("book",))

    assert page.value("saga_runs_started_total", saga="trip", version="3") == 0
    assert page.value("saga_runs_finished_total", saga="trip", outcome="compensated") == 0
    assert page.value("saga_runs_compensating_total", saga="trip", cause="unknown") == 0
    step = {"saga": "trip", "step": "book", "direction": "action"}
    assert page.value("saga_step_attempts_total", outcome="failed", **step) == 0
    assert page.value("saga_step_timeouts_total", **step) == 0


def test_knowing_a_saga_again_resets_nothing(told):
    told.metrics.register_saga("place-order", 1, ("reserve", "charge"))

    assert told.value("saga_runs_started_total", saga="place-order", version="1") == 1


def test_an_unknown_outcome_is_a_timeout_and_has_no_duration(page):
    page.metrics.register_saga("trip", 1, ("book",))
    labels = {"saga": "trip", "step": "book", "direction": "action"}

    page.tell(
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

    assert page.value("saga_step_timeouts_total", **labels) == 1
    assert page.value("saga_step_attempts_total", outcome="unknown", **labels) == 1
    assert page.value("saga_step_duration_seconds_count", **labels) is None


def changed(state: ConnectionState, generation: int) -> events.BrokerConnectionChanged:
    return events.BrokerConnectionChanged(connection="publish", state=state, generation=generation)


def test_a_link_is_counted_as_reconnected_when_it_comes_back_and_not_when_it_is_unblocked(page):
    page.tell(
        changed(ConnectionState.CONNECTING, 0),
        changed(ConnectionState.CONNECTED, 1),
        changed(ConnectionState.BLOCKED, 1),
    )
    assert page.value("saga_broker_connected", connection="publish") == 1
    assert page.value("saga_broker_blocked", connection="publish") == 1

    page.tell(
        changed(ConnectionState.CONNECTED, 1),
        changed(ConnectionState.CONNECTING, 1),
        changed(ConnectionState.CONNECTED, 2),
    )

    assert page.value("saga_broker_blocked", connection="publish") == 0
    assert page.value("saga_broker_reconnects_total", connection="publish") == 1


def test_ready_is_1_only_between_ready_and_draining(page):
    page.tell(events.ProcessReady(program="worker"))
    assert page.value("saga_process_ready") == 1

    page.tell(events.ProcessStopping(program="worker"))
    assert page.value("saga_process_ready") == 0


def test_what_is_gone_from_the_database_is_gone_from_the_gauges(told):
    told.tell(events.BacklogCounted())

    assert told.value("saga_runs", saga="place-order", status="running") == 0
    assert told.value("saga_incidents_open", saga="place-order", cause="", step="") == 0
    gone = {"saga": "place-order", "cause": "step_failed", "step": "charge"}
    assert told.value("saga_incidents_open", **gone) is None
    assert told.value("saga_dead_letters_open", reason=DeadLetterReason.MALFORMED_JSON) is None


def test_open_incidents_of_steps_that_are_not_known_here_make_one_series(told):
    found = {("place-order", "step_failed", f"step-{n}"): 2 for n in range(50)}
    told.tell(events.BacklogCounted(incidents_open=found))

    other = {"saga": "place-order", "cause": "step_failed", "step": "other"}
    assert told.value("saga_incidents_open", **other) == 100
    assert told.metrics.render()[0].count(b"saga_incidents_open{") == 1


def test_a_process_that_counts_no_backlog_does_not_claim_that_it_is_empty(page):
    assert b"saga_outbox_pending" not in page.metrics.render()[0]


def hostile(number: int) -> tuple[events.TelemetryEvent, ...]:
    text: Any = f"canary-{number}"
    run: dict[str, Any] = {"saga": text, "run_id": text}
    at: dict[str, Any] = {**run, "step": text, "direction": Direction.ACTION}
    return (
        events.RunStarted(version=number, **run),
        events.RunCompensating(version=number, cause=text, **run),
        events.RunFinished(version=number, status=Status.COMPLETED, duration_s=1, **run),
        events.AttemptFinished(attempt=number, outcome=Outcome.FAILED, duration_s=1, **at),
        events.RetryScheduled(attempt=number, delay_s=1, **at),
        events.OperatorActionProcessed(action=text, accepted=True),
        events.BrokerConnectionChanged(
            connection=text, state=ConnectionState.CONNECTED, generation=number
        ),
        events.HandlerFinished(command=text, outcome=Outcome.FAILED, duration_s=1),
        events.HandlerFailed(command=text, code=text, problem=text),
        events.HandlerAbandoned(command=text, problem=text, still_running=True),
        events.BarrierHit(command=text, reason=BarrierCase.REPEATED),
    )


def test_names_that_nobody_registered_make_one_series_whatever_they_are(page):
    for number in range(3):
        page.tell(*hostile(number))
    before = page.series()
    for number in range(3, 500):
        page.tell(*hostile(number))

    assert page.series() == before
    assert b"canary" not in page.metrics.render()[0]


def test_an_unknown_step_of_a_known_saga_is_other(told):
    told.tell(
        events.RetryScheduled(
            saga="place-order",
            step="canary",
            direction=Direction.ACTION,
            attempt=1,
            run_id="r",
            delay_s=1,
        )
    )

    labels = {"saga": "place-order", "step": "other", "direction": "action"}
    assert told.value("saga_step_retries_total", **labels) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda text: events.MessageDeadLettered(queue=text, reason=DeadLetterReason.TOO_DEEP),
        lambda text: events.MessageDeadLettered(queue="q", reason=text),
        lambda text: events.MessageIgnored(reason=text),
        lambda text: events.DatabaseUnavailable(operation=text, problem=""),
        lambda text: events.InternalErrorCaught(operation=text, problem=""),
        lambda text: events.MessagesPublished(
            exchange=text, outcome=PublishOutcome.CONFIRMED, messages=1
        ),
        lambda text: events.MessagesConsumed(queue=text, messages=1),
        lambda text: events.BarrierHit(command="c", reason=text),
        lambda text: events.IncidentOpened(
            saga="s", step="s", direction=Direction.ACTION, run_id="r", cause=text
        ),
    ],
)
def test_codes_are_bounded_and_well_formed(page, make):
    before = page.series()
    for number in range(10 * MAX_CODES_PER_LABEL):
        page.tell(make(f"code_{number}"), make(f"not a code {number}\n"), make("x" * 1000))

    # Two metrics have the label queue, and each keeps `other` beside the codes.
    assert page.series() - before <= 2 * (MAX_CODES_PER_LABEL + 1)
    assert b"not a code" not in page.metrics.render()[0]


def test_failures_of_code_are_counted_by_names_that_are_declared(page):
    page.metrics.register_saga("shop", 1, ["charge"])
    assert page.value("saga_user_code_failures_total", saga="shop", step="") == 0
    assert page.value("saga_user_code_failures_total", saga="shop", step="charge") == 0
    before = page.series()
    for saga, step in [("shop", "charge"), ("shop", ""), ("shop", "s1"), ("s2", "s3"), ("s4", "")]:
        page.tell(events.UserCodeFailed(saga=saga, run_id="r", function="f", problem="", step=step))

    labels = [
        ("shop", "charge"),
        ("shop", ""),
        ("shop", "other"),
        ("other", "other"),
        ("other", ""),
    ]
    for saga, step in labels:
        assert page.value("saga_user_code_failures_total", saga=saga, step=step) == 1
    assert page.series() == before + 3


def test_a_database_full_of_names_makes_a_bounded_number_of_series(page):
    many = {(f"saga-{number:05}", "running"): 1 for number in range(10 * MAX_SAGAS)}

    page.tell(events.BacklogCounted(runs=many))

    assert page.series("saga_runs{") == MAX_SAGAS + 1
    assert page.value("saga_runs", saga="other", status="running") == 9 * MAX_SAGAS


def test_fifty_sagas_of_ten_steps_begin_within_five_thousand_series(page):
    for number in range(50):
        page.metrics.register_saga(f"saga-{number}", 1, [f"step-{step}" for step in range(10)])

    assert page.series() < 5000


def test_two_registries_share_nothing(told):
    other = Page()

    assert told.value("saga_runs_started_total", saga="place-order", version="1") == 1
    assert other.value("saga_runs_started_total", saga="place-order", version="1") is None
