"""
Every metric: its name, kind, labels, buckets and help.

The names are a contract with dashboards and alerts; docs/telemetry.md has a row for each. A label
has the values of an enum, or names that a module of sagas or participants declares. It never has an
id, a key or text of another program.

To add a metric: an entry here, and what changes it in `metrics` (an event) or in `backlog_gauges`
(a count of rows, from store/backlog_counts.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import PublishOutcome
from saga_engine.telemetry.operations import Operation
from saga_engine.vocabulary import (
    BarrierResult,
    CompensationCode,
    ConnectionRole,
    Direction,
    IgnoredReason,
    IncidentCause,
    OperatorActionKind,
    Outcome,
    Status,
)

ENGINE_DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Seconds, for what the engine does."""

HANDLER_DURATION_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    *(30, 60, 300),
)
"""Seconds, for what a participant does: OpenTelemetry's for HTTP servers, and three more."""

RUN_DURATION_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 21_600, 86_400, 604_800)
"""Seconds, for whole runs: up to a week."""

BATCH_SIZE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
"""Triggers in a batch."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label; `values` are all it can have, and empty for declared names."""

    name: str
    values: tuple[str, ...] = ()


def _closed(name: str, values: Iterable[str]) -> Label:
    return Label(name, tuple(str(value) for value in values))


SAGA = Label("saga")
VERSION = Label("version")
STEP = Label("step")
COMMAND = Label("command")
PROJECTION = Label("projection")
FEED = Label("feed")
SINK = Label("sink")
CONSUMER = Label("consumer")
QUEUE = Label("queue")
EXCHANGE = Label("exchange")
DIRECTION = _closed("direction", Direction)
RUN_OUTCOME = _closed("outcome", (status for status in Status if status.is_finished))
RUN_STATUS = _closed("status", (status for status in Status if not status.is_finished))
COMPENSATION_CAUSE = _closed("cause", CompensationCode)
ATTEMPT_OUTCOME = _closed("outcome", Outcome)
HANDLER_OUTCOME = _closed("outcome", (each for each in Outcome if each is not Outcome.UNKNOWN))
INCIDENT_CAUSE = _closed("cause", IncidentCause)
OPERATOR_ACTION = _closed("action", OperatorActionKind)
ACTION_OUTCOME = Label("outcome", ("accepted", "refused"))
IGNORED_REASON = _closed("reason", IgnoredReason)
DEAD_LETTER_REASON = _closed("reason", DeadLetterReason)
PUBLISH_OUTCOME = _closed(
    "outcome", (each for each in PublishOutcome if each is not PublishOutcome.WAITING)
)
BATCH_PHASE = Label("phase", ("decide", "commit", "publish"))
CONNECTION = _closed("connection", ConnectionRole)
OPERATION = _closed("operation", Operation)
BARRIER_REASON = _closed("reason", BarrierResult)
PROJECTION_STATE = Label("state", ("active", "paused", "stopped"))
READER_KIND = Label("kind", ("projection", "feed"))
READER = Label("reader")
FEED_STATE = Label("state", ("active", "stopped"))
CONSUMER_OUTCOME = Label("outcome", ("applied", "duplicate", "passed", "kept"))
CONSUMER_FAILURE = Label("kind", ("stopped", "parked", "unreadable"))
FEED_OUTCOME = Label("outcome", ("published", "skipped"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric. `backlog`: it counts rows of PostgreSQL and is the same for every worker."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    backlog: bool = False

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of its labels, in the order in which their values are given."""
        return tuple(label.name for label in self.labels)


def _counter(name: str, help_text: str, *labels: Label) -> MetricSpec:
    return MetricSpec(name=name, kind="counter", help=help_text, labels=labels)


def _gauge(name: str, help_text: str, *labels: Label) -> MetricSpec:
    return MetricSpec(name=name, kind="gauge", help=help_text, labels=labels)


def _backlog_gauge(name: str, help_text: str, *labels: Label) -> MetricSpec:
    return MetricSpec(name=name, kind="gauge", help=help_text, labels=labels, backlog=True)


def _histogram(name: str, help_text: str, buckets: tuple[float, ...], *labels: Label) -> MetricSpec:
    return MetricSpec(name=name, kind="histogram", help=help_text, labels=labels, buckets=buckets)


_RUN_METRICS = (
    _counter("saga_runs_started_total", "Runs started.", SAGA, VERSION),
    _counter("saga_runs_finished_total", "Runs finished.", SAGA, RUN_OUTCOME),
    _histogram(
        "saga_run_duration_seconds",
        "Time from the start to the end of a run.",
        RUN_DURATION_BUCKETS,
        SAGA,
        RUN_OUTCOME,
    ),
    _counter(
        "saga_runs_compensating_total",
        "Runs that began to compensate, by cause.",
        SAGA,
        COMPENSATION_CAUSE,
    ),
    _counter(
        "saga_step_attempts_total",
        "Finished attempts; outcome unknown is a timeout.",
        *(SAGA, STEP, DIRECTION, ATTEMPT_OUTCOME),
    ),
    _histogram(
        "saga_step_duration_seconds",
        "Time from the commit of a command to its reply.",
        HANDLER_DURATION_BUCKETS,
        *(SAGA, STEP, DIRECTION),
    ),
    _counter("saga_step_retries_total", "Retries scheduled.", SAGA, STEP, DIRECTION),
    _counter("saga_step_timeouts_total", "Attempts without a reply.", SAGA, STEP, DIRECTION),
    _counter("saga_incidents_opened_total", "Incidents opened.", SAGA, INCIDENT_CAUSE),
    _counter(
        "saga_operator_actions_total",
        "Requests of operators that a worker processed.",
        OPERATOR_ACTION,
        ACTION_OUTCOME,
    ),
)

_MESSAGE_METRICS = (
    _counter("saga_messages_ignored_total", "Messages that changed nothing.", IGNORED_REASON),
    _counter(
        "saga_messages_held_total",
        "Messages stored until a worker has the definition of their run.",
    ),
    _counter("saga_dead_letters_total", "Messages dead-lettered.", QUEUE, DEAD_LETTER_REASON),
    _counter("saga_messages_published_total", "Messages published.", EXCHANGE, PUBLISH_OUTCOME),
    _counter("saga_messages_consumed_total", "Messages consumed.", QUEUE),
    _counter("saga_messages_redelivered_total", "Messages consumed more than once.", QUEUE),
    _histogram("saga_batch_size", "Triggers in one transaction.", BATCH_SIZE_BUCKETS),
    _histogram(
        "saga_batch_duration_seconds",
        "Duration of the phases of one batch.",
        ENGINE_DURATION_BUCKETS,
        BATCH_PHASE,
    ),
)

_PROCESS_METRICS = (
    _gauge("saga_process_ready", "1 while this process takes messages."),
    _gauge("saga_broker_connected", "1 while connected to the broker.", CONNECTION),
    _gauge("saga_broker_blocked", "1 while the broker accepts no publishes.", CONNECTION),
    _counter("saga_broker_reconnects_total", "Reconnects to the broker.", CONNECTION),
    _counter("saga_db_errors_total", "Operations that failed in PostgreSQL.", OPERATION),
    _counter("saga_internal_errors_total", "Bugs of the engine that were caught.", OPERATION),
    _counter(
        "saga_user_code_failures_total",
        "Mapping functions and types that raised or were interrupted.",
        *(SAGA, STEP),
    ),
    _counter(
        "saga_user_code_contained_total",
        "Attempts of user code to stop more than its own work.",
    ),
    _counter("saga_schema_breaks_total", "Registered schemas that another version cannot read."),
    _counter("saga_watchdogs_lost_total", "Watchdogs that ended or could not be started."),
    _counter("saga_processes_lost_total", "Processes that a supervisor had to start again."),
    _histogram(
        "saga_event_loop_lag_seconds",
        "How late a timer of the event loop fires.",
        ENGINE_DURATION_BUCKETS,
    ),
    _gauge(
        "saga_engine_build_info",
        "Always 1; the labels are the versions.",
        VERSION,
        Label("python"),
    ),
)

_PARTICIPANT_METRICS = (
    _histogram(
        "saga_handler_duration_seconds",
        "Time to process one command.",
        HANDLER_DURATION_BUCKETS,
        COMMAND,
        HANDLER_OUTCOME,
    ),
    _counter(
        "saga_handler_failures_total",
        "Exceptions of handlers other than Rejected and Failed.",
        COMMAND,
    ),
    _counter(
        "saga_handlers_abandoned_total",
        "Handlers that were cancelled and are no longer awaited.",
        COMMAND,
    ),
    _counter(
        "saga_barrier_hits_total", "Commands the barrier replied to.", COMMAND, BARRIER_REASON
    ),
)

_PROJECTION_METRICS = (
    _counter(
        "saga_events_appended_total",
        "Positions of events that became readable, in the whole database.",
    ),
    _gauge(
        "saga_event_horizon_age_seconds",
        "For how long a transaction that has appended holds readers of all events back.",
    ),
    _gauge("saga_projection_lag_events", "Positions up to the horizon.", PROJECTION),
    _gauge("saga_projection_lag_seconds", "Age of the next event.", PROJECTION),
    _gauge(
        "saga_projection_state", "1 for the state of the projection.", PROJECTION, PROJECTION_STATE
    ),
    _counter("saga_projection_events_total", "Events in applied batches.", PROJECTION),
    _histogram(
        "saga_projection_batch_duration_seconds",
        "Duration of the transaction of a batch.",
        ENGINE_DURATION_BUCKETS,
        PROJECTION,
    ),
    _counter("saga_projection_failures_total", "Events that cannot be applied.", PROJECTION),
)

_FEED_METRICS = (
    _gauge("saga_feed_lag_events", "Positions up to the horizon.", FEED, SINK),
    _gauge("saga_feed_lag_seconds", "Age of the next event.", FEED, SINK),
    _gauge("saga_feed_state", "1 for the state of the feed.", FEED, SINK, FEED_STATE),
    _gauge(
        "saga_feed_waiting_for_sink",
        "1 while this process cannot publish the feed because of its sink.",
        FEED,
        SINK,
    ),
    _gauge("saga_feed_waiting_streams", "Streams whose next event a webhook refuses.", FEED, SINK),
    _counter("saga_feed_events_total", "Events that feeds have passed.", FEED, SINK, FEED_OUTCOME),
    _counter("saga_feed_failures_total", "Events that cannot be published.", FEED, SINK),
)

_CONSUMER_METRICS = (
    _counter("saga_consumer_events_total", "Messages consumed.", CONSUMER, CONSUMER_OUTCOME),
    _counter("saga_consumer_late_events_total", "Events after a later one.", CONSUMER),
    _counter("saga_consumer_failures_total", "Messages that fail.", CONSUMER, CONSUMER_FAILURE),
    _histogram(
        "saga_consumer_batch_duration_seconds",
        "Duration of a batch of a consumer.",
        ENGINE_DURATION_BUCKETS,
        CONSUMER,
    ),
    _gauge("saga_consumer_delay_seconds", "Age of the last event at its effect.", CONSUMER),
    _gauge("saga_consumer_partitions", "Partitions in a state.", CONSUMER, PROJECTION_STATE),
    _gauge("saga_consumer_waiting_messages", "Messages behind the consumed ones.", CONSUMER),
    _gauge("saga_consumer_lag_seconds", "Age of the oldest of them.", CONSUMER),
    _gauge("saga_consumer_kept_messages", "Messages kept for an operator.", CONSUMER),
    _gauge("saga_consumer_parked_streams", "Streams that wait for an operator.", CONSUMER),
    _gauge("saga_consumer_partitions_without_owner", "Active, without a process.", CONSUMER),
    _gauge("saga_consumer_partitions_unavailable", "Without their source.", CONSUMER),
)

_RETENTION_METRICS = (
    _gauge(
        "saga_retention_held_seconds",
        "Since when a projection or feed has not moved that an expired month is kept for.",
        READER_KIND,
        READER,
    ),
    _gauge(
        "saga_retention_incomplete",
        "1 for a projection or feed that has missed journals, because it had not moved.",
        READER_KIND,
        READER,
    ),
)

_BACKLOG_METRICS = (
    _backlog_gauge("saga_runs", "Unfinished runs.", SAGA, RUN_STATUS),
    _backlog_gauge("saga_oldest_run_age_seconds", "Age of the oldest unfinished run.", SAGA),
    _backlog_gauge("saga_incidents_open", "Open incidents.", SAGA, INCIDENT_CAUSE, STEP),
    _backlog_gauge("saga_dead_letters_open", "Open dead letters.", DEAD_LETTER_REASON),
    _backlog_gauge(
        "saga_messages_awaiting_definition",
        "Messages stored until a worker has the definition of their run.",
    ),
    _backlog_gauge("saga_starts_awaiting_admission", "Starts that wait for a slot.", SAGA),
    _backlog_gauge("saga_starts_stranded", "Starts of a definition that no worker has.", SAGA),
    _backlog_gauge(
        "saga_crash_suspects", "Runs whose code ended a worker; they are processed alone."
    ),
    _backlog_gauge("saga_outbox_pending", "Commands committed and not yet deleted as confirmed."),
    _backlog_gauge("saga_outbox_oldest_age_seconds", "Age of the oldest of them."),
    _backlog_gauge("saga_timers_pending", "Runs with a timer."),
    _backlog_gauge("saga_timer_oldest_overdue_seconds", "How late the most overdue timer is."),
    _backlog_gauge(
        "saga_runs_in_default_partition", "Runs in the default partition, which is never dropped."
    ),
)

METRIC_CATALOGUE: tuple[MetricSpec, ...] = (
    *_RUN_METRICS,
    *_MESSAGE_METRICS,
    *_PROCESS_METRICS,
    *_PARTICIPANT_METRICS,
    *_PROJECTION_METRICS,
    *_FEED_METRICS,
    *_CONSUMER_METRICS,
    *_RETENTION_METRICS,
    *_BACKLOG_METRICS,
)
