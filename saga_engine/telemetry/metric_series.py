"""The series of one registry, and the names that may become label values."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from saga_engine.telemetry.events import TelemetryEvent
from saga_engine.telemetry.metric_catalogue import MetricSpec

OTHER = "other"
"""The label value of names that this process has not registered."""

MAX_CODES_PER_LABEL = 64
"""Values that one label takes from names of queues or from the database; far more than exist."""

MAX_SAGAS = 200
"""Sagas in one gauge of the database, which has the sagas of all workers and versions."""

_METRIC_TYPES: Mapping[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
_CODE_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")

EventHandlers = Mapping[type[TelemetryEvent], Callable[[Any], None]]
"""What each telemetry event does to metrics."""

Key = TypeVar("Key")


class MetricSeries:
    """The metrics of one registry; a series is found by its metric's name and label values."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._metrics: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._metrics

    def create(self, metrics: Iterable[MetricSpec]) -> None:
        """Create metrics; those without labels have their series from now on."""
        for metric in metrics:
            metric_type = _METRIC_TYPES[metric.kind]
            options = {"buckets": metric.buckets} if metric.buckets else {}
            self._metrics[metric.name] = metric_type(
                metric.name, metric.help, metric.label_names, registry=self._registry, **options
            )

    def increment(self, name: str, *labels: str, amount: float = 1) -> None:
        """Add to a counter."""
        self._child(name, labels).inc(amount)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Add a value to a histogram; a clock that went backwards counts as 0."""
        self._child(name, labels).observe(max(0.0, value))

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._child(name, labels).set(value)

    def replace(self, name: str, values: Mapping[Any, float]) -> None:
        """
        Replace every series of a gauge whose first label is the saga or the reason.

        Series of rows that are gone disappear. Above MAX_SAGAS, the rest is counted as `other`.
        """
        gauge = self._metrics[name]
        gauge.clear()
        shown: set[str] = set()
        for labels, value in sorted(values.items()):
            if labels[0] in shown or len(shown) < MAX_SAGAS:
                shown.add(labels[0])
                gauge.labels(*labels).inc(value)
            else:
                gauge.labels(OTHER, *labels[1:]).inc(value)

    def _child(self, name: str, labels: tuple[str, ...]) -> Any:
        child = self._children.get((name, *labels))
        if child is None:
            metric = self._metrics[name]
            child = self._children[name, *labels] = metric.labels(*labels) if labels else metric
        return child


class Progress(Protocol[Key]):
    """How far projections are, by name, or feeds, by name and sink."""

    @property
    def lag_events(self) -> Mapping[Key, int]:
        """How far each is behind the horizon, in positions."""

    @property
    def lag_s(self) -> Mapping[Key, float]:
        """How far each is behind the horizon, in seconds."""

    @property
    def states(self) -> Mapping[Key, str]:
        """The state of each."""


class LabelNames:
    """Which names of sagas, projections and others may be label values; the rest are `other`."""

    def __init__(self) -> None:
        self.sagas: set[str] = set()
        self._versions: set[tuple[str, int]] = set()
        self._steps: set[tuple[str, str]] = set()
        self._commands: set[str] = set()
        self._projections: set[str] = set()
        self._feeds: set[tuple[str, str]] = set()
        self._consumers: set[str] = set()
        self._codes: dict[str, set[str]] = {}

    def register_saga(self, saga: str, version: int, steps: Collection[str]) -> None:
        """Allow the names of one definition."""
        self.sagas.add(saga)
        self._versions.add((saga, version))
        self._steps.update((saga, step) for step in steps)

    def register_commands(self, commands: Iterable[str]) -> None:
        """Allow the names of a participant's commands."""
        self._commands.update(commands)

    def register_projections(self, names: Iterable[str]) -> None:
        """Allow the names of a projector's projections."""
        self._projections.update(names)

    def register_feeds(self, feeds: Iterable[tuple[str, str]]) -> None:
        """Allow the names of a projector's feeds, with their sinks."""
        self._feeds.update(feeds)

    def register_consumers(self, names: Iterable[str]) -> None:
        """Allow the names of a process's consumers."""
        self._consumers.update(names)

    def saga(self, name: str) -> str:
        """The label value for a saga."""
        return name if name in self.sagas else OTHER

    def version(self, saga: str, version: int) -> str:
        """The label value for a saga's version."""
        return str(version) if (saga, version) in self._versions else OTHER

    def step(self, saga: str, step: str) -> str:
        """The label value for a step."""
        return step if (saga, step) in self._steps else OTHER

    def command(self, name: str) -> str:
        """The label value for a command."""
        return name if name in self._commands else OTHER

    def projection(self, name: str) -> str:
        """The label value for a projection."""
        return name if name in self._projections else OTHER

    def feed(self, feed: tuple[str, str]) -> tuple[str, str]:
        """The label values for a feed and its sink."""
        return feed if feed in self._feeds else (OTHER, OTHER)

    def consumer(self, name: str) -> str:
        """The label value for a consumer."""
        return name if name in self._consumers else OTHER

    def code(self, label: str, value: str) -> str:
        """
        The label value for a name that comes from the topology or the database.

        One label takes at most MAX_CODES_PER_LABEL of them, and only well-formed ones.
        """
        seen = self._codes.setdefault(label, set())
        if value not in seen:
            if len(seen) >= MAX_CODES_PER_LABEL or not _CODE_PATTERN.fullmatch(value):
                return OTHER
            seen.add(value)
        return value


def closed_value(values: Collection[str], value: str) -> str:
    """A label value from a closed set."""
    return value if value in values else OTHER
