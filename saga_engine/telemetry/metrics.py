"""
An observer that counts telemetry events in Prometheus metrics.

`metric_catalogue` has the names and meanings; this module says which event changes which metric. A
label value is a member of an enum or a name that was registered (`register_saga`). Everything else
counts as `other`, so that no message can create a series.
"""

import platform
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version as version_of

from prometheus_client import CollectorRegistry, ProcessCollector

from saga_engine.telemetry import events, metric_catalogue
from saga_engine.telemetry.backlog_gauges import update_backlog_gauges
from saga_engine.telemetry.consumer_metrics import ConsumerMetrics
from saga_engine.telemetry.events import TelemetryEvent
from saga_engine.telemetry.exposition import render_exposition
from saga_engine.telemetry.metric_series import (
    EventHandlers,
    Key,
    LabelNames,
    MetricSeries,
    Progress,
    closed_value,
)
from saga_engine.vocabulary import ConnectionState, Direction, Outcome


class Metrics:
    """Counts events in the metrics of one registry; a registry of its own if none is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry or CollectorRegistry()
        self._series = MetricSeries(self._registry)
        self._names = LabelNames()
        self._generations: dict[str, int] = {}
        self._handlers: EventHandlers = {
            **self._run_handlers(),
            **self._message_handlers(),
            **self._process_handlers(),
            **self._participant_handlers(),
            **self._projection_handlers(),
            **self._feed_handlers(),
            **ConsumerMetrics(self._series, self._names).handlers(),
        }
        self._series.create(each for each in metric_catalogue.METRIC_CATALOGUE if not each.backlog)
        ProcessCollector(registry=self._registry)
        self._initialize_series()

    def __call__(self, event: TelemetryEvent) -> None:
        """Update the metrics that *event* changes."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def register_saga(self, saga: str, version: int, steps: Collection[str]) -> None:
        """
        Allow a saga's names as label values, and set its counters to 0.

        A counter that appears with its first event hides that event from rate() and increase(). A
        step gets them for its action only: compensations are half of all series, and most never
        happen.
        """
        self._names.register_saga(saga, version, steps)
        increment = self._series.increment
        increment("saga_runs_started_total", saga, str(version), amount=0)
        for status in metric_catalogue.RUN_OUTCOME.values:
            increment("saga_runs_finished_total", saga, status, amount=0)
        for cause in metric_catalogue.COMPENSATION_CAUSE.values:
            increment("saga_runs_compensating_total", saga, cause, amount=0)
        for step_or_input in ("", *steps):  # the type of the input has no step
            increment("saga_user_code_failures_total", saga, step_or_input, amount=0)
        for step in steps:
            labels = (saga, step, Direction.ACTION)
            increment("saga_step_retries_total", *labels, amount=0)
            increment("saga_step_timeouts_total", *labels, amount=0)
            for outcome in metric_catalogue.ATTEMPT_OUTCOME.values:
                increment("saga_step_attempts_total", *labels, outcome, amount=0)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics and their content type; see `render_exposition`."""
        return render_exposition(self._registry, accept)

    def _initialize_series(self) -> None:
        versions = (version_of("saga-engine"), platform.python_version())
        self._series.set("saga_engine_build_info", 1, *versions)
        for connection in metric_catalogue.CONNECTION.values:
            self._series.set("saga_broker_connected", 0, connection)
            self._series.set("saga_broker_blocked", 0, connection)
            self._series.increment("saga_broker_reconnects_total", connection, amount=0)
        for action in metric_catalogue.OPERATOR_ACTION.values:
            for outcome in metric_catalogue.ACTION_OUTCOME.values:
                self._series.increment("saga_operator_actions_total", action, outcome, amount=0)

    def _run_handlers(self) -> EventHandlers:
        increment, names = self._series.increment, self._names
        return {
            events.DefinitionRegistered: lambda e: self.register_saga(e.saga, e.version, e.steps),
            events.RunStarted: lambda e: increment(
                "saga_runs_started_total", names.saga(e.saga), names.version(e.saga, e.version)
            ),
            events.RunCompensating: lambda e: increment(
                "saga_runs_compensating_total",
                names.saga(e.saga),
                closed_value(metric_catalogue.COMPENSATION_CAUSE.values, e.cause),
            ),
            events.RunFinished: self._run_finished,
            events.AttemptFinished: self._attempt_finished,
            events.RetryScheduled: lambda e: increment(
                "saga_step_retries_total", *self._step_labels(e.saga, e.step, e.direction)
            ),
            events.IncidentOpened: lambda e: increment(
                "saga_incidents_opened_total",
                names.saga(e.saga),
                closed_value(metric_catalogue.INCIDENT_CAUSE.values, e.cause),
            ),
            events.OperatorActionProcessed: lambda e: increment(
                "saga_operator_actions_total",
                closed_value(metric_catalogue.OPERATOR_ACTION.values, e.action),
                "accepted" if e.accepted else "refused",
            ),
        }

    def _message_handlers(self) -> EventHandlers:
        increment, names = self._series.increment, self._names
        return {
            events.MessageIgnored: lambda e: increment(
                "saga_messages_ignored_total",
                closed_value(metric_catalogue.IGNORED_REASON.values, e.reason),
            ),
            events.MessageHeld: lambda _: increment("saga_messages_held_total"),
            events.MessageDeadLettered: lambda e: increment(
                "saga_dead_letters_total",
                names.code("queue", e.queue),
                closed_value(metric_catalogue.DEAD_LETTER_REASON.values, e.reason),
            ),
            events.BatchProcessed: self._batch_processed,
            events.MessagesPublished: lambda e: increment(
                "saga_messages_published_total",
                names.code("exchange", e.exchange or "default"),
                closed_value(metric_catalogue.PUBLISH_OUTCOME.values, e.outcome),
                amount=e.messages,
            ),
            events.MessagesConsumed: self._messages_consumed,
        }

    def _process_handlers(self) -> EventHandlers:
        series = self._series
        increment, observe, set_gauge = series.increment, series.observe, series.set
        return {
            events.ProcessReady: lambda _: set_gauge("saga_process_ready", 1),
            events.ProcessStopping: lambda _: set_gauge("saga_process_ready", 0),
            events.ProcessStopped: lambda _: set_gauge("saga_process_ready", 0),
            events.BrokerConnectionChanged: self._broker_connection_changed,
            events.DatabaseUnavailable: lambda e: increment(
                "saga_db_errors_total", closed_value(metric_catalogue.OPERATION.values, e.operation)
            ),
            events.InternalErrorCaught: lambda e: increment(
                "saga_internal_errors_total",
                closed_value(metric_catalogue.OPERATION.values, e.operation),
            ),
            events.UserCodeFailed: lambda e: increment(
                "saga_user_code_failures_total",
                self._names.saga(e.saga),
                self._names.step(e.saga, e.step) if e.step else "",
            ),
            events.UserCodeContained: lambda _: increment("saga_user_code_contained_total"),
            events.SchemaBroken: lambda _: increment("saga_schema_breaks_total"),
            events.WatchdogLost: lambda _: increment("saga_watchdogs_lost_total"),
            events.ProcessLost: lambda _: increment("saga_processes_lost_total"),
            events.EventLoopLagMeasured: lambda e: observe("saga_event_loop_lag_seconds", e.lag_s),
            events.RetentionMeasured: self._retention_measured,
            events.BacklogCounted: lambda e: update_backlog_gauges(self._series, self._names, e),
        }

    def _participant_handlers(self) -> EventHandlers:
        increment, names = self._series.increment, self._names
        return {
            events.HandlersRegistered: lambda e: names.register_commands(e.commands),
            events.HandlerFinished: lambda e: self._series.observe(
                "saga_handler_duration_seconds", e.duration_s, names.command(e.command), e.outcome
            ),
            events.HandlerFailed: lambda e: increment(
                "saga_handler_failures_total", names.command(e.command)
            ),
            events.HandlerAbandoned: lambda e: increment(
                "saga_handlers_abandoned_total", names.command(e.command)
            ),
            events.BarrierHit: lambda e: increment(
                "saga_barrier_hits_total",
                names.command(e.command),
                closed_value(metric_catalogue.BARRIER_REASON.values, e.reason),
            ),
        }

    def _projection_handlers(self) -> EventHandlers:
        increment, names = self._series.increment, self._names

        def count_failure(event: events.ProjectionStopped | events.StreamParked) -> None:
            increment("saga_projection_failures_total", names.projection(event.projection))

        return {
            events.ProjectionsRegistered: lambda e: self._register_projections(e.projections),
            events.ProjectionBatchApplied: self._projection_batch_applied,
            events.ProjectionStopped: count_failure,
            events.StreamParked: count_failure,
            events.ProjectionsMeasured: self._projections_measured,
        }

    def _feed_handlers(self) -> EventHandlers:
        def count_failure(e: events.FeedStopped | events.FeedEventDeadLettered) -> None:
            self._series.increment("saga_feed_failures_total", *self._names.feed((e.feed, e.sink)))

        return {
            events.FeedsRegistered: lambda e: self._register_feeds(e.feeds),
            events.FeedEventsPassed: self._feed_events_passed,
            events.FeedStopped: count_failure,
            events.FeedEventDeadLettered: count_failure,
            events.FeedsMeasured: self._feeds_measured,
        }

    def _step_labels(self, saga: str, step: str, direction: Direction) -> tuple[str, str, str]:
        return self._names.saga(saga), self._names.step(saga, step), direction

    def _run_finished(self, event: events.RunFinished) -> None:
        labels = (self._names.saga(event.saga), event.status)
        self._series.increment("saga_runs_finished_total", *labels)
        self._series.observe("saga_run_duration_seconds", event.duration_s, *labels)

    def _attempt_finished(self, event: events.AttemptFinished) -> None:
        labels = self._step_labels(event.saga, event.step, event.direction)
        self._series.increment("saga_step_attempts_total", *labels, event.outcome)
        if event.outcome is Outcome.UNKNOWN:
            self._series.increment("saga_step_timeouts_total", *labels)
        elif event.duration_s is not None:
            self._series.observe("saga_step_duration_seconds", event.duration_s, *labels)

    def _batch_processed(self, event: events.BatchProcessed) -> None:
        observe = self._series.observe
        observe("saga_batch_size", event.triggers)
        observe("saga_batch_duration_seconds", event.decide_s, "decide")
        observe("saga_batch_duration_seconds", event.commit_s, "commit")
        observe("saga_batch_duration_seconds", event.publish_s, "publish")

    def _register_projections(self, projections: Collection[str]) -> None:
        """Allow the names of projections as label values, and set their counters to 0."""
        self._names.register_projections(projections)
        for projection in projections:
            self._series.increment("saga_projection_events_total", projection, amount=0)
            self._series.increment("saga_projection_failures_total", projection, amount=0)

    def _projection_batch_applied(self, event: events.ProjectionBatchApplied) -> None:
        projection = self._names.projection(event.projection)
        self._series.increment("saga_projection_events_total", projection, amount=event.events)
        self._series.observe("saga_projection_batch_duration_seconds", event.duration_s, projection)

    def _projections_measured(self, event: events.ProjectionsMeasured) -> None:
        self._series.increment("saga_events_appended_total", amount=event.appended)
        self._series.set("saga_event_horizon_age_seconds", event.horizon_age_s)
        states = metric_catalogue.PROJECTION_STATE.values
        self._set_progress(
            "saga_projection", event, lambda name: (self._names.projection(name),), states
        )

    def _register_feeds(self, feeds: Collection[tuple[str, str]]) -> None:
        """Allow the names of feeds as label values, and set their counters to 0."""
        self._names.register_feeds(feeds)
        for feed in feeds:
            for outcome in metric_catalogue.FEED_OUTCOME.values:
                self._series.increment("saga_feed_events_total", *feed, outcome, amount=0)
            self._series.increment("saga_feed_failures_total", *feed, amount=0)

    def _feed_events_passed(self, event: events.FeedEventsPassed) -> None:
        feed = self._names.feed((event.feed, event.sink))
        increment = self._series.increment
        increment("saga_feed_events_total", *feed, "published", amount=event.published)
        increment("saga_feed_events_total", *feed, "skipped", amount=event.skipped)

    def _feeds_measured(self, event: events.FeedsMeasured) -> None:
        states = metric_catalogue.FEED_STATE.values
        self._set_progress("saga_feed", event, self._names.feed, states)
        for feed in event.states:
            labels, streams = self._names.feed(feed), event.waiting_streams.get(feed, 0)
            self._series.set("saga_feed_waiting_for_sink", feed in event.waiting_for_sink, *labels)
            self._series.set("saga_feed_waiting_streams", streams, *labels)

    def _retention_measured(self, event: events.RetentionMeasured) -> None:
        """Replace the series: a reader that has gone on or is removed has none."""
        of_held = {self._reader(key): value for key, value in event.held_s.items()}
        self._series.replace("saga_retention_held_seconds", of_held)
        of_incomplete = {self._reader(key): 1.0 for key in event.incomplete}
        self._series.replace("saga_retention_incomplete", of_incomplete)

    def _reader(self, key: tuple[str, str]) -> tuple[str, str]:
        kind, name = key
        return kind, self._names.code("reader", name)

    def _set_progress(
        self,
        prefix: str,
        event: Progress[Key],
        labels: Callable[[Key], Sequence[str]],
        states: Collection[str],
    ) -> None:
        """Set lag and state of each projection or feed."""
        set_gauge = self._series.set
        for key, lag in event.lag_events.items():
            set_gauge(f"{prefix}_lag_events", lag, *labels(key))
        for key, seconds in event.lag_s.items():
            set_gauge(f"{prefix}_lag_seconds", seconds, *labels(key))
        for key, current in event.states.items():
            for state in states:
                set_gauge(f"{prefix}_state", state == current, *labels(key), state)

    def _messages_consumed(self, event: events.MessagesConsumed) -> None:
        queue = self._names.code("queue", event.queue)
        self._series.increment("saga_messages_consumed_total", queue, amount=event.messages)
        self._series.increment("saga_messages_redelivered_total", queue, amount=event.redelivered)

    def _broker_connection_changed(self, event: events.BrokerConnectionChanged) -> None:
        connection = closed_value(metric_catalogue.CONNECTION.values, event.connection)
        connected = event.state in (ConnectionState.CONNECTED, ConnectionState.BLOCKED)
        self._series.set("saga_broker_connected", connected, connection)
        self._series.set("saga_broker_blocked", event.state is ConnectionState.BLOCKED, connection)
        if connected and event.generation > self._generations.get(connection, 1):
            self._series.increment("saga_broker_reconnects_total", connection)
            self._generations[connection] = event.generation
