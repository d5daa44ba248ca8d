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
from saga_engine.telemetry.events import Fact
from saga_engine.telemetry.metric_catalogue import CATALOGUE, Metric
from saga_engine.vocabulary import Direction, Outcome, Resolution, Status

OTHER = "other"
CODES_MAX = 64
"""Values one label takes from codes that other packages fix; far more than there are."""
SAGAS_MAX = 200
"""Saga names in gauges of the database, where the registered ones of all versions are."""

_KINDS: Mapping[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_CAUSES = ("rejected", "failed", "unknown", "cancelled", "deadline", "late_success")
_ENDINGS = tuple(status.value for status in Status if status.finished)
_ROLES = ("publish", "consume")
_ACTIONS = (*(each.value for each in Resolution), "cancel", "redrive", "discard")


class Metrics:
    """The observer that counts; one per registry, its own when none is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry = registry or CollectorRegistry()
        self._made: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        self._sagas: set[str] = set()
        self._versions: set[tuple[str, int]] = set()
        self._steps: set[tuple[str, str]] = set()
        self._commands: set[str] = set()
        self._codes: dict[str, set[str]] = {}
        self._epochs: dict[str, int] = {}
        self._observing = self._table()
        self._make(metric for metric in CATALOGUE if not metric.backlog)
        ProcessCollector(registry=registry)
        self._begin()

    def __call__(self, fact: Fact) -> None:
        """Move what *fact* moves."""
        observe = self._observing.get(type(fact))
        if observe is not None:
            observe(fact)

    def know(self, saga: str, version: int, steps: Collection[str]) -> None:
        """
        Admit a saga's names as labels, with its counters at 0.

        A counter that appears with its first event hides that event from rate() and increase().
        Of the steps only the action's: most compensations never happen, and they are half of all.
        """
        self._sagas.add(saga)
        self._versions.add((saga, version))
        self._steps.update((saga, step) for step in steps)
        self._count("saga_runs_started_total", saga, str(version), by=0)
        for ending in _ENDINGS:
            self._count("saga_runs_finished_total", saga, ending, by=0)
        for cause in _CAUSES:
            self._count("saga_compensations_total", saga, cause, by=0)
        for place in ("", *steps):  # the type of the input has no step
            self._count("saga_code_failures_total", saga, place, by=0)
        for step in steps:
            labels = (saga, step, Direction.ACTION.value)
            self._count("saga_step_retries_total", *labels, by=0)
            self._count("saga_step_timeouts_total", *labels, by=0)
            for outcome in Outcome:
                self._count("saga_step_attempts_total", *labels, outcome.value, by=0)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics when *accept* asks, else text 0.0.4."""
        plain = _WithoutCreated(self._registry)
        if "application/openmetrics-text" in accept:
            shown = openmetrics.generate_latest(plain)  # type: ignore[no-untyped-call]  # of theirs
            return shown, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(plain), CONTENT_TYPE_PLAIN_0_0_4

    def _make(self, metrics: Iterable[Metric]) -> None:
        for metric in metrics:
            kind = _KINDS[metric.kind]
            more = {"buckets": metric.buckets} if metric.buckets else {}
            self._made[metric.name] = kind(
                metric.name, metric.help, metric.labels, registry=self._registry, **more
            )

    def _begin(self) -> None:
        running = (version_of("saga-engine"), platform.python_version())
        self._child("saga_engine_build_info", *running).set(1)
        for role in _ROLES:
            self._child("saga_broker_connected", role).set(0)
            self._child("saga_broker_blocked", role).set(0)
            self._count("saga_broker_reconnects_total", role, by=0)
        for action in _ACTIONS:
            for outcome in ("accepted", "refused"):
                self._count("saga_operator_actions_total", action, outcome, by=0)

    def _child(self, name: str, *labels: str) -> Any:
        found = self._children.get((name, *labels))
        if found is None:
            made = self._made[name]
            found = self._children[name, *labels] = made.labels(*labels) if labels else made
        return found

    def _count(self, name: str, *labels: str, by: float = 1) -> None:
        self._child(name, *labels).inc(by)

    def _observe(self, name: str, value: float, *labels: str) -> None:
        self._child(name, *labels).observe(max(0.0, value))

    def _code(self, label: str, value: str) -> str:
        """A code that another package fixes; no more of them than CODES_MAX, and well-formed."""
        seen = self._codes.setdefault(label, set())
        if value not in seen:
            if len(seen) >= CODES_MAX or not _CODE.fullmatch(value):
                return OTHER
            seen.add(value)
        return value

    def _saga(self, name: str) -> str:
        return name if name in self._sagas else OTHER

    def _command(self, name: str) -> str:
        return name if name in self._commands else OTHER

    def _step(self, saga: str, step: str, direction: str) -> tuple[str, str, str]:
        known = (saga, step) in self._steps
        return (saga, step, direction) if known else (self._saga(saga), OTHER, direction)

    def _table(self) -> Mapping[type[Fact], Callable[[Any], None]]:
        return {
            events.DefinitionRegistered: lambda f: self.know(f.saga, f.version, f.steps),
            events.HandlersRegistered: lambda f: self._commands.update(f.commands),
            events.RunStarted: self._run_started,
            events.RunCompensating: lambda f: self._count(
                "saga_compensations_total", self._saga(f.saga), _among(_CAUSES, f.cause)
            ),
            events.RunFinished: self._run_finished,
            events.AttemptSettled: self._attempt_settled,
            events.RetryScheduled: lambda f: self._count(
                "saga_step_retries_total", *self._step(f.saga, f.step, f.direction)
            ),
            events.IncidentOpened: lambda f: self._count(
                "saga_incidents_opened_total", self._saga(f.saga), self._code("cause", f.cause)
            ),
            events.OperatorAnswered: self._operator_answered,
            events.MessageIgnored: lambda f: self._count(
                "saga_duplicates_total", self._code("ignored", f.reason)
            ),
            events.MessageDeadLettered: self._dead_lettered,
            events.BatchProcessed: self._batch_processed,
            events.MessagesPublished: self._published,
            events.MessagesConsumed: self._consumed,
            events.LinkChanged: self._link_changed,
            events.DatabaseTroubled: lambda f: self._count(
                "saga_db_errors_total", self._code("operation", f.operation)
            ),
            events.FaultFound: lambda f: self._count(
                "saga_faults_total", self._code("operation", f.operation)
            ),
            events.CodeFailed: self._code_failed,
            **self._simple(),
            events.HandlerFinished: lambda f: self._observe(
                "saga_handler_duration_seconds", f.duration_s, self._command(f.command), f.outcome
            ),
            events.HandlerFailed: lambda f: self._count(
                "saga_handler_failures_total", self._command(f.command)
            ),
            events.HandlerAbandoned: lambda f: self._count(
                "saga_handlers_abandoned_total", self._command(f.command)
            ),
            events.BarrierHit: lambda f: self._count(
                "saga_barrier_total", self._command(f.command), self._code("case", f.case)
            ),
            events.BacklogCounted: self._backlog_counted,
            events.LoopMeasured: lambda f: self._observe("saga_event_loop_lag_seconds", f.lag_s),
        }

    def _simple(self) -> Mapping[type[Fact], Callable[[Any], None]]:
        """What moves a metric without labels, whatever the fact says."""
        return {
            events.MessageParked: lambda _: self._count("saga_parked_total"),
            events.CodeContained: lambda _: self._count("saga_code_contained_total"),
            events.OverseerLost: lambda _: self._count("saga_overseers_lost_total"),
            events.ProcessReady: lambda _: self._child("saga_worker_ready").set(1),
            events.ProcessDraining: lambda _: self._child("saga_worker_ready").set(0),
            events.ProcessStopped: lambda _: self._child("saga_worker_ready").set(0),
        }

    def _run_started(self, fact: events.RunStarted) -> None:
        known = (fact.saga, fact.version) in self._versions
        self._count(
            "saga_runs_started_total",
            self._saga(fact.saga),
            str(fact.version) if known else OTHER,
        )

    def _run_finished(self, fact: events.RunFinished) -> None:
        labels = (self._saga(fact.saga), fact.status.value)
        self._count("saga_runs_finished_total", *labels)
        self._observe("saga_run_duration_seconds", fact.duration_s, *labels)

    def _attempt_settled(self, fact: events.AttemptSettled) -> None:
        labels = self._step(fact.saga, fact.step, fact.direction.value)
        self._count("saga_step_attempts_total", *labels, fact.outcome.value)
        if fact.outcome is Outcome.UNKNOWN:
            self._count("saga_step_timeouts_total", *labels)
        elif fact.duration_s is not None:
            self._observe("saga_step_duration_seconds", fact.duration_s, *labels)

    def _code_failed(self, fact: events.CodeFailed) -> None:
        known = not fact.step or (fact.saga, fact.step) in self._steps
        self._count(
            "saga_code_failures_total", self._saga(fact.saga), fact.step if known else OTHER
        )

    def _operator_answered(self, fact: events.OperatorAnswered) -> None:
        outcome = "accepted" if fact.accepted else "refused"
        self._count("saga_operator_actions_total", _among(_ACTIONS, fact.action), outcome)

    def _dead_lettered(self, fact: events.MessageDeadLettered) -> None:
        labels = (self._code("queue", fact.queue), self._code("reason", fact.reason))
        self._count("saga_dead_letters_total", *labels)

    def _batch_processed(self, fact: events.BatchProcessed) -> None:
        self._observe("saga_batch_size", fact.triggers)
        self._observe("saga_batch_duration_seconds", fact.decide_s, "decide")
        self._observe("saga_batch_duration_seconds", fact.commit_s, "commit")
        self._observe("saga_batch_duration_seconds", fact.publish_s, "publish")

    def _published(self, fact: events.MessagesPublished) -> None:
        exchange = self._code("exchange", fact.exchange or "default")
        outcome = self._code("published", fact.outcome)
        self._count("saga_messages_published_total", exchange, outcome, by=fact.messages)

    def _consumed(self, fact: events.MessagesConsumed) -> None:
        queue = self._code("queue", fact.queue)
        self._count("saga_messages_consumed_total", queue, by=fact.messages)
        self._count("saga_messages_redelivered_total", queue, by=fact.redelivered)

    def _link_changed(self, fact: events.LinkChanged) -> None:
        role = _among(_ROLES, fact.role)
        up = fact.phase in ("connected", "blocked")
        self._child("saga_broker_connected", role).set(up)
        self._child("saga_broker_blocked", role).set(fact.phase == "blocked")
        if up and fact.epoch > self._epochs.get(role, 1):
            self._count("saga_broker_reconnects_total", role)
            self._epochs[role] = fact.epoch

    def _backlog_counted(self, fact: events.BacklogCounted) -> None:
        if "saga_runs" not in self._made:
            self._make(metric for metric in CATALOGUE if metric.backlog)
        unfinished = [status.value for status in Status if not status.finished]
        nothing = {(saga, status): 0 for saga in self._sagas for status in unfinished}
        self._replace("saga_runs", {**nothing, **fact.runs})
        ages = dict.fromkeys(self._sagas, 0.0) | dict(fact.run_oldest_s)
        self._replace("saga_oldest_run_age_seconds", {(saga,): age for saga, age in ages.items()})
        self._replace("saga_incidents_open", self._incidents_open(fact))
        waiting = dict.fromkeys(self._sagas, 0) | dict(fact.starts_waiting)
        self._replace("saga_starts_waiting", {(saga,): n for saga, n in waiting.items()})
        stranded = dict.fromkeys(self._sagas, 0) | dict(fact.starts_stranded)
        self._replace("saga_starts_stranded", {(saga,): n for saga, n in stranded.items()})
        letters = {(self._code("reason", why),): n for why, n in fact.dead_letters_open.items()}
        self._replace("saga_dead_letters_open", letters)
        self._child("saga_parked_open").set(fact.messages_parked)
        self._child("saga_code_suspects").set(fact.code_suspects)
        self._child("saga_outbox_pending").set(fact.outbox_pending)
        self._child("saga_outbox_oldest_age_seconds").set(fact.outbox_oldest_s)
        self._child("saga_timers_pending").set(fact.timers_pending)
        self._child("saga_timer_oldest_overdue_seconds").set(fact.timer_overdue_s)
        self._child("saga_runs_unpartitioned").set(fact.runs_unpartitioned)

    def _incidents_open(self, fact: events.BacklogCounted) -> Mapping[Any, float]:
        """By saga, cause and step; a saga without any has one series, without cause and step."""
        found: defaultdict[tuple[str, str, str], float] = defaultdict(float)
        for (saga, cause, step), number in fact.incidents_open.items():
            known = step if (saga, step) in self._steps else OTHER
            found[saga, self._code("cause", cause), known] += number
        quiet = self._sagas - {saga for saga, _, _ in found}
        return {**{(saga, "", ""): 0.0 for saga in quiet}, **found}

    def _replace(self, name: str, counts: Mapping[Any, float]) -> None:
        """Forget what a gauge said, so that what is gone from the database goes from here too."""
        gauge = self._made[name]
        gauge.clear()
        admitted: set[str] = set()
        for labels, count in sorted(counts.items()):
            if labels[0] in admitted or len(admitted) < SAGAS_MAX:
                admitted.add(labels[0])
                gauge.labels(*labels).inc(count)
            else:
                gauge.labels(OTHER, *labels[1:]).inc(count)


def _among(values: Collection[str], value: str) -> str:
    return value if value in values else OTHER


class _WithoutCreated(Collector):
    """A registry without the `_created` series, which double every counter and tell nothing new."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Family]:
        for family in self._registry.collect():
            shown = Family(family.name, family.documentation, family.type, family.unit)
            shown.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield shown
