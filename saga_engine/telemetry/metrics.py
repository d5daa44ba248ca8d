"""
Facts as metrics, in a registry of their own, and their exposition for /metrics.

What a metric is called and means stands in `catalogue`; here is which fact moves which. Labels are
taken from names that the code has registered (`know`) or from closed lists; whatever else turns up
counts as `other`, so nobody outside can make a new series.
"""

import platform
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib.metadata import version as version_of
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from saga_engine.telemetry import events
from saga_engine.telemetry.events import TelemetryEvent
from saga_engine.telemetry.metric_catalogue import METRIC_CATALOGUE, MetricSpec
from saga_engine.vocabulary import Direction, Outcome, Resolution, Status

OTHER = "other"
MAX_CODES_PER_LABEL = 64
"""Values one label takes from codes that other packages fix; far more than there are."""
MAX_SAGAS = 200
"""Saga names in gauges of the database, where the registered ones of all versions are."""

_METRIC_TYPES: Mapping[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
_CODE_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_COMPENSATION_CAUSES = ("rejected", "failed", "unknown", "cancelled", "deadline", "late_success")
_FINAL_STATUSES = tuple(status.value for status in Status if status.is_finished)
_BROKER_CONNECTIONS = ("publish", "consume")
_OPERATOR_ACTIONS = (*(each.value for each in Resolution), "cancel", "redrive", "discard")


class Metrics:
    """The observer that counts; one per registry, its own when none is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry = registry or CollectorRegistry()
        self._metrics: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        self._sagas: set[str] = set()
        self._versions: set[tuple[str, int]] = set()
        self._steps: set[tuple[str, str]] = set()
        self._commands: set[str] = set()
        self._codes: dict[str, set[str]] = {}
        self._generations: dict[str, int] = {}
        self._handlers = self._handler_table()
        self._create_metrics(metric for metric in METRIC_CATALOGUE if not metric.backlog)
        ProcessCollector(registry=registry)
        self._initialize_series()

    def __call__(self, event: TelemetryEvent) -> None:
        """Move what *fact* moves."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def register_saga(self, saga: str, version: int, steps: Collection[str]) -> None:
        """
        Admit a saga's names as labels, with its counters at 0.

        A counter that appears with its first event hides that event from rate() and increase().
        Of the steps only the action's: most compensations never happen, and they are half of all.
        """
        self._sagas.add(saga)
        self._versions.add((saga, version))
        self._steps.update((saga, step) for step in steps)
        self._increment("saga_runs_started_total", saga, str(version), amount=0)
        for status in _FINAL_STATUSES:
            self._increment("saga_runs_finished_total", saga, status, amount=0)
        for cause in _COMPENSATION_CAUSES:
            self._increment("saga_runs_compensating_total", saga, cause, amount=0)
        for step_or_input in ("", *steps):  # the type of the input has no step
            self._increment("saga_user_code_failures_total", saga, step_or_input, amount=0)
        for step in steps:
            labels = (saga, step, Direction.ACTION.value)
            self._increment("saga_step_retries_total", *labels, amount=0)
            self._increment("saga_step_timeouts_total", *labels, amount=0)
            for outcome in Outcome:
                self._increment("saga_step_attempts_total", *labels, outcome.value, amount=0)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics when *accept* asks, else text 0.0.4."""
        collector = _RegistryWithoutCreated(self._registry)
        if "application/openmetrics-text" in accept:
            exposition = openmetrics.generate_latest(collector)  # type: ignore[no-untyped-call]  # of theirs
            return exposition, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(collector), CONTENT_TYPE_PLAIN_0_0_4

    def _create_metrics(self, metrics: Iterable[MetricSpec]) -> None:
        for metric in metrics:
            metric_type = _METRIC_TYPES[metric.kind]
            options = {"buckets": metric.buckets} if metric.buckets else {}
            self._metrics[metric.name] = metric_type(
                metric.name, metric.help, metric.labels, registry=self._registry, **options
            )

    def _initialize_series(self) -> None:
        build_labels = (version_of("saga-engine"), platform.python_version())
        self._child("saga_engine_build_info", *build_labels).set(1)
        for role in _BROKER_CONNECTIONS:
            self._child("saga_broker_connected", role).set(0)
            self._child("saga_broker_blocked", role).set(0)
            self._increment("saga_broker_reconnects_total", role, amount=0)
        for action in _OPERATOR_ACTIONS:
            for outcome in ("accepted", "refused"):
                self._increment("saga_operator_actions_total", action, outcome, amount=0)

    def _child(self, name: str, *labels: str) -> Any:
        child = self._children.get((name, *labels))
        if child is None:
            metric = self._metrics[name]
            child = self._children[name, *labels] = metric.labels(*labels) if labels else metric
        return child

    def _increment(self, name: str, *labels: str, amount: float = 1) -> None:
        self._child(name, *labels).inc(amount)

    def _observe(self, name: str, value: float, *labels: str) -> None:
        self._child(name, *labels).observe(max(0.0, value))

    def _code_label(self, label: str, value: str) -> str:
        """A code that another package fixes; no more of them than CODES_MAX, and well-formed."""
        seen = self._codes.setdefault(label, set())
        if value not in seen:
            if len(seen) >= MAX_CODES_PER_LABEL or not _CODE_PATTERN.fullmatch(value):
                return OTHER
            seen.add(value)
        return value

    def _saga_label(self, name: str) -> str:
        return name if name in self._sagas else OTHER

    def _command_label(self, name: str) -> str:
        return name if name in self._commands else OTHER

    def _step_labels(self, saga: str, step: str, direction: str) -> tuple[str, str, str]:
        known = (saga, step) in self._steps
        return (saga, step, direction) if known else (self._saga_label(saga), OTHER, direction)

    def _handler_table(self) -> Mapping[type[TelemetryEvent], Callable[[Any], None]]:
        return {
            events.DefinitionRegistered: lambda f: self.register_saga(f.saga, f.version, f.steps),
            events.HandlersRegistered: lambda f: self._commands.update(f.commands),
            events.RunStarted: self._run_started,
            events.RunCompensating: lambda f: self._increment(
                "saga_runs_compensating_total",
                self._saga_label(f.saga),
                _known_or_other(_COMPENSATION_CAUSES, f.cause),
            ),
            events.RunFinished: self._run_finished,
            events.AttemptFinished: self._attempt_finished,
            events.RetryScheduled: lambda f: self._increment(
                "saga_step_retries_total", *self._step_labels(f.saga, f.step, f.direction)
            ),
            events.IncidentOpened: lambda f: self._increment(
                "saga_incidents_opened_total",
                self._saga_label(f.saga),
                self._code_label("cause", f.cause),
            ),
            events.OperatorActionProcessed: self._operator_action_processed,
            events.MessageIgnored: lambda f: self._increment(
                "saga_messages_ignored_total", self._code_label("ignored", f.reason)
            ),
            events.MessageDeadLettered: self._message_dead_lettered,
            events.BatchProcessed: self._batch_processed,
            events.MessagesPublished: self._messages_published,
            events.MessagesConsumed: self._messages_consumed,
            events.BrokerConnectionChanged: self._broker_connection_changed,
            events.DatabaseUnavailable: lambda f: self._increment(
                "saga_db_errors_total", self._code_label("operation", f.operation)
            ),
            events.InternalErrorCaught: lambda f: self._increment(
                "saga_internal_errors_total", self._code_label("operation", f.operation)
            ),
            events.UserCodeFailed: self._user_code_failed,
            **self._unlabelled_handlers(),
            events.HandlerFinished: lambda f: self._observe(
                "saga_handler_duration_seconds",
                f.duration_s,
                self._command_label(f.command),
                f.outcome,
            ),
            events.HandlerFailed: lambda f: self._increment(
                "saga_handler_failures_total", self._command_label(f.command)
            ),
            events.HandlerAbandoned: lambda f: self._increment(
                "saga_handlers_abandoned_total", self._command_label(f.command)
            ),
            events.BarrierHit: lambda f: self._increment(
                "saga_barrier_hits_total",
                self._command_label(f.command),
                self._code_label("barrier", f.reason),
            ),
            events.BacklogCounted: self._backlog_counted,
            events.EventLoopLagMeasured: lambda f: self._observe(
                "saga_event_loop_lag_seconds", f.lag_s
            ),
        }

    def _unlabelled_handlers(self) -> Mapping[type[TelemetryEvent], Callable[[Any], None]]:
        """What moves a metric without labels, whatever the fact says."""
        return {
            events.MessageHeld: lambda _: self._increment("saga_messages_held_total"),
            events.UserCodeContained: lambda _: self._increment("saga_user_code_contained_total"),
            events.WatchdogLost: lambda _: self._increment("saga_watchdogs_lost_total"),
            events.ProcessReady: lambda _: self._child("saga_process_ready").set(1),
            events.ProcessStopping: lambda _: self._child("saga_process_ready").set(0),
            events.ProcessStopped: lambda _: self._child("saga_process_ready").set(0),
        }

    def _run_started(self, event: events.RunStarted) -> None:
        known = (event.saga, event.version) in self._versions
        self._increment(
            "saga_runs_started_total",
            self._saga_label(event.saga),
            str(event.version) if known else OTHER,
        )

    def _run_finished(self, event: events.RunFinished) -> None:
        labels = (self._saga_label(event.saga), event.status.value)
        self._increment("saga_runs_finished_total", *labels)
        self._observe("saga_run_duration_seconds", event.duration_s, *labels)

    def _attempt_finished(self, event: events.AttemptFinished) -> None:
        labels = self._step_labels(event.saga, event.step, event.direction.value)
        self._increment("saga_step_attempts_total", *labels, event.outcome.value)
        if event.outcome is Outcome.UNKNOWN:
            self._increment("saga_step_timeouts_total", *labels)
        elif event.duration_s is not None:
            self._observe("saga_step_duration_seconds", event.duration_s, *labels)

    def _user_code_failed(self, event: events.UserCodeFailed) -> None:
        known = not event.step or (event.saga, event.step) in self._steps
        self._increment(
            "saga_user_code_failures_total",
            self._saga_label(event.saga),
            event.step if known else OTHER,
        )

    def _operator_action_processed(self, event: events.OperatorActionProcessed) -> None:
        outcome = "accepted" if event.accepted else "refused"
        self._increment(
            "saga_operator_actions_total", _known_or_other(_OPERATOR_ACTIONS, event.action), outcome
        )

    def _message_dead_lettered(self, event: events.MessageDeadLettered) -> None:
        labels = (self._code_label("queue", event.queue), self._code_label("reason", event.reason))
        self._increment("saga_dead_letters_total", *labels)

    def _batch_processed(self, event: events.BatchProcessed) -> None:
        self._observe("saga_batch_size", event.triggers)
        self._observe("saga_batch_duration_seconds", event.decide_s, "decide")
        self._observe("saga_batch_duration_seconds", event.commit_s, "commit")
        self._observe("saga_batch_duration_seconds", event.publish_s, "publish")

    def _messages_published(self, event: events.MessagesPublished) -> None:
        exchange = self._code_label("exchange", event.exchange or "default")
        outcome = self._code_label("published", event.outcome)
        self._increment("saga_messages_published_total", exchange, outcome, amount=event.messages)

    def _messages_consumed(self, event: events.MessagesConsumed) -> None:
        queue = self._code_label("queue", event.queue)
        self._increment("saga_messages_consumed_total", queue, amount=event.messages)
        self._increment("saga_messages_redelivered_total", queue, amount=event.redelivered)

    def _broker_connection_changed(self, event: events.BrokerConnectionChanged) -> None:
        connection = _known_or_other(_BROKER_CONNECTIONS, event.connection)
        connected = event.state in ("connected", "blocked")
        self._child("saga_broker_connected", connection).set(connected)
        self._child("saga_broker_blocked", connection).set(event.state == "blocked")
        if connected and event.generation > self._generations.get(connection, 1):
            self._increment("saga_broker_reconnects_total", connection)
            self._generations[connection] = event.generation

    def _backlog_counted(self, event: events.BacklogCounted) -> None:
        if "saga_runs" not in self._metrics:
            self._create_metrics(metric for metric in METRIC_CATALOGUE if metric.backlog)
        unfinished = [status.value for status in Status if not status.is_finished]
        zero_counts = {(saga, status): 0 for saga in self._sagas for status in unfinished}
        self._replace_gauge("saga_runs", {**zero_counts, **event.runs})
        ages = dict.fromkeys(self._sagas, 0.0) | dict(event.oldest_run_age_s)
        self._replace_gauge(
            "saga_oldest_run_age_seconds", {(saga,): age for saga, age in ages.items()}
        )
        self._replace_gauge("saga_incidents_open", self._incidents_open(event))
        waiting = dict.fromkeys(self._sagas, 0) | dict(event.starts_awaiting_admission)
        self._replace_gauge(
            "saga_starts_awaiting_admission", {(saga,): n for saga, n in waiting.items()}
        )
        stranded = dict.fromkeys(self._sagas, 0) | dict(event.starts_stranded)
        self._replace_gauge("saga_starts_stranded", {(saga,): n for saga, n in stranded.items()})
        dead_letters = {
            (self._code_label("reason", why),): n for why, n in event.dead_letters_open.items()
        }
        self._replace_gauge("saga_dead_letters_open", dead_letters)
        self._child("saga_messages_awaiting_definition").set(event.messages_awaiting_definition)
        self._child("saga_crash_suspects").set(event.crash_suspects)
        self._child("saga_outbox_pending").set(event.outbox_pending)
        self._child("saga_outbox_oldest_age_seconds").set(event.outbox_oldest_age_s)
        self._child("saga_timers_pending").set(event.timers_pending)
        self._child("saga_timer_oldest_overdue_seconds").set(event.timer_overdue_s)
        self._child("saga_runs_in_default_partition").set(event.runs_in_default_partition)

    def _incidents_open(self, event: events.BacklogCounted) -> Mapping[Any, float]:
        """By saga, cause and step; a saga without any has one series, without cause and step."""
        counts: defaultdict[tuple[str, str, str], float] = defaultdict(float)
        for (saga, cause, step), number in event.incidents_open.items():
            known = step if (saga, step) in self._steps else OTHER
            counts[saga, self._code_label("cause", cause), known] += number
        sagas_without_incidents = self._sagas - {saga for saga, _, _ in counts}
        return {**{(saga, "", ""): 0.0 for saga in sagas_without_incidents}, **counts}

    def _replace_gauge(self, name: str, counts: Mapping[Any, float]) -> None:
        """Forget what a gauge said, so that what is gone from the database goes from here too."""
        gauge = self._metrics[name]
        gauge.clear()
        shown_sagas: set[str] = set()
        for labels, count in sorted(counts.items()):
            if labels[0] in shown_sagas or len(shown_sagas) < MAX_SAGAS:
                shown_sagas.add(labels[0])
                gauge.labels(*labels).inc(count)
            else:
                gauge.labels(OTHER, *labels[1:]).inc(count)


def _known_or_other(values: Collection[str], value: str) -> str:
    return value if value in values else OTHER


class _RegistryWithoutCreated(Collector):
    """A registry without the `_created` series, which double every counter and tell nothing new."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Family]:
        for family in self._registry.collect():
            copy = Family(family.name, family.documentation, family.type, family.unit)
            copy.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield copy
