"""
What is measured: every metric's name, kind, labels, buckets and help.

The names are a contract with dashboards and alerts; docs/telemetry.md has a row for each. A label
takes values that are fixed in code, and never an id, a key or a text from outside. `metrics` makes
prometheus' objects of this; nothing here knows of it.
"""

from dataclasses import dataclass
from typing import Literal

ENGINE_DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Seconds, for what the engine itself does."""

HANDLER_DURATION_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    *(30, 60, 300),
)
"""Seconds, for what a participant does: OpenTelemetry's advice for HTTP servers, and three more."""

RUN_DURATION_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 21_600, 86_400, 604_800)
"""Seconds, for whole runs: up to a week."""

BATCH_SIZE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
"""Triggers in a batch."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric; `backlog` ones are the same for every worker and are made once counted."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    backlog: bool = False


def _counter(name: str, help_text: str, *labels: str) -> MetricSpec:
    return MetricSpec(name, "counter", help_text, labels)


def _gauge(name: str, help_text: str, *labels: str) -> MetricSpec:
    return MetricSpec(name, "gauge", help_text, labels)


def _backlog_gauge(name: str, help_text: str, *labels: str) -> MetricSpec:
    return MetricSpec(name, "gauge", help_text, labels, backlog=True)


def _histogram(name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> MetricSpec:
    return MetricSpec(name, "histogram", help_text, labels, buckets)


METRIC_CATALOGUE: tuple[MetricSpec, ...] = (
    _counter("saga_runs_started_total", "Runs accepted.", "saga", "version"),
    _counter("saga_runs_finished_total", "Runs that came to an end.", "saga", "outcome"),
    _histogram(
        "saga_run_duration_seconds",
        "From start to end of a run.",
        RUN_DURATION_BUCKETS,
        "saga",
        "outcome",
    ),
    _counter("saga_runs_compensating_total", "Runs that turned back, by cause.", "saga", "cause"),
    _counter(
        "saga_step_attempts_total",
        "Attempts that settled; outcome unknown is a timeout.",
        *("saga", "step", "direction", "outcome"),
    ),
    _histogram(
        "saga_step_duration_seconds",
        "From the order of an attempt to its reply.",
        HANDLER_DURATION_BUCKETS,
        *("saga", "step", "direction"),
    ),
    _counter("saga_step_retries_total", "Retries scheduled.", "saga", "step", "direction"),
    _counter("saga_step_timeouts_total", "Attempts without a reply.", "saga", "step", "direction"),
    _counter("saga_incidents_opened_total", "Incidents opened, by cause.", "saga", "cause"),
    _counter("saga_operator_actions_total", "Operators' requests answered.", "action", "outcome"),
    _counter("saga_messages_ignored_total", "Messages that changed nothing.", "reason"),
    _counter("saga_messages_held_total", "Messages parked for want of a definition."),
    _counter("saga_dead_letters_total", "Messages set aside.", "queue", "reason"),
    _counter("saga_messages_published_total", "Publishes by answer.", "exchange", "outcome"),
    _counter("saga_messages_consumed_total", "Messages that arrived.", "queue"),
    _counter("saga_messages_redelivered_total", "Those of them not for the first time.", "queue"),
    _histogram("saga_batch_size", "Triggers in one transaction.", BATCH_SIZE_BUCKETS),
    _histogram(
        "saga_batch_duration_seconds", "Parts of one batch.", ENGINE_DURATION_BUCKETS, "phase"
    ),
    _gauge("saga_process_ready", "1 while this process takes messages."),
    _gauge("saga_broker_connected", "1 while the link to the broker is up.", "connection"),
    _gauge("saga_broker_blocked", "1 while the broker takes no publishes.", "connection"),
    _counter("saga_broker_reconnects_total", "Links that came back.", "connection"),
    _counter("saga_db_errors_total", "Operations the database did not answer.", "operation"),
    _counter("saga_internal_errors_total", "Bugs of ours that were contained.", "operation"),
    _counter(
        "saga_user_code_failures_total",
        "Mappings and types that raised or were interrupted.",
        *("saga", "step"),
    ),
    _counter(
        "saga_user_code_contained_total", "Tries of user code to stop more than its own work."
    ),
    _counter("saga_watchdogs_lost_total", "Overseers that were gone or could not be started."),
    _histogram(
        "saga_event_loop_lag_seconds",
        "How late the event loop comes round.",
        ENGINE_DURATION_BUCKETS,
    ),
    _gauge("saga_engine_build_info", "Always 1; the labels say what runs.", "version", "python"),
    _histogram(
        "saga_handler_duration_seconds",
        "One command performed.",
        HANDLER_DURATION_BUCKETS,
        "command",
        "outcome",
    ),
    _counter("saga_handler_failures_total", "Exceptions of handlers, refusals aside.", "command"),
    _counter("saga_handlers_abandoned_total", "Handlers cancelled and not awaited.", "command"),
    _counter("saga_barrier_hits_total", "Commands the barrier answered.", "command", "reason"),
    _backlog_gauge("saga_runs", "Unfinished runs.", "saga", "status"),
    _backlog_gauge("saga_oldest_run_age_seconds", "Age of the oldest unfinished run.", "saga"),
    _backlog_gauge(
        "saga_incidents_open", "Incidents that wait for a person.", "saga", "cause", "step"
    ),
    _backlog_gauge("saga_dead_letters_open", "Dead letters that wait for a person.", "reason"),
    _backlog_gauge(
        "saga_messages_awaiting_definition", "Messages parked for want of a definition."
    ),
    _backlog_gauge("saga_starts_awaiting_admission", "Starts that wait for their turn.", "saga"),
    _backlog_gauge("saga_starts_stranded", "Starts of a definition that no worker has.", "saga"),
    _backlog_gauge("saga_crash_suspects", "Runs whose code ended a worker; they are taken alone."),
    _backlog_gauge("saga_outbox_pending", "Commands committed and not yet deleted as confirmed."),
    _backlog_gauge("saga_outbox_oldest_age_seconds", "Age of the oldest of them."),
    _backlog_gauge("saga_timers_pending", "Runs that time alone will wake."),
    _backlog_gauge("saga_timer_oldest_overdue_seconds", "How late the most overdue timer is."),
    _backlog_gauge(
        "saga_runs_in_default_partition", "Runs in no month's partition; nothing drops them."
    ),
)
