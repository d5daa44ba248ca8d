"""
The metrics of several processes as one exposition, with the series that one process would have.

Counters and histograms are summed. They never decrease when a process is replaced: what those that
ended had counted is kept. A gauge has the largest value of all processes, because nearly all gauges
show what is in PostgreSQL, which each process counts for itself. The exceptions are listed below.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from saga_engine.telemetry.events import TelemetryEvent
from saga_engine.telemetry.exposition import render_exposition
from saga_engine.telemetry.metrics import Metrics

Rule: TypeAlias = Callable[[Sequence[float]], float]
"""From the values of one series in several processes to the one that is shown."""

_RULES: Mapping[str, Rule] = {
    "saga_events_appended": max,  # each process counts the events of the whole database
    "process_virtual_memory_bytes": sum,
    "process_resident_memory_bytes": sum,
    "process_open_fds": sum,
    "process_max_fds": sum,
    "process_start_time_seconds": min,  # when the first of them started
}
"""Families that are merged in another way than others of their kind."""

_OF_EVERY_PROCESS = {"saga_process_ready", "saga_broker_connected"}
"""Gauges that are 1 only if they are 1 in every process, and every process answers."""

_Families: TypeAlias = dict[str, Family]


class MergedMetrics(Collector):
    """
    The metrics of a supervisor and of its processes; an observer of the supervisor's own events.

    Args:
        processes: how many there are; each is known by a number from 1.
    """

    def __init__(self, processes: int) -> None:
        self._registry = CollectorRegistry()
        self._own = Metrics(self._registry)
        self._processes = {number: _ProcessMetrics() for number in range(1, processes + 1)}

    def __call__(self, event: TelemetryEvent) -> None:
        """Update the supervisor's own metrics."""
        self._own(event)

    def record(self, process: int, text: str | None) -> None:
        """
        Remember what a process exposes, in the text format 0.0.4.

        None: it does not answer; until it does, its counters stay and it has no gauges.
        """
        self._processes[process].record(text)

    def record_end(self, process: int) -> None:
        """A process ended: keep what it had counted for the one that replaces it."""
        self._processes[process].end()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics and their content type; see `render_exposition`."""
        return render_exposition(self, accept)

    def collect(self) -> Iterator[Family]:
        """Yield each family of metrics once."""
        own = {family.name: family for family in self._registry.collect()}
        shown = [process.families() for process in self._processes.values()]
        for name in dict.fromkeys(name for families in (own, *shown) for name in families):
            yield _merged(own.get(name), [families.get(name) for families in shown], name)


class _ProcessMetrics:
    """What one process exposes, with the counts of those that it has replaced."""

    def __init__(self) -> None:
        self.answers = False
        self._text = ""
        self._ended: _Families = {}

    def record(self, text: str | None) -> None:
        self.answers = text is not None
        self._text = self._text if text is None else text

    def end(self) -> None:
        self.answers = False
        self._ended = self.families()
        self._text = ""

    def families(self) -> _Families:
        """Return them by name; without gauges if the process does not answer."""
        latest = {each.name: each for each in text_string_to_metric_families(self._text)}
        return {
            name: _merge([self._ended.get(name), latest.get(name)], sum)
            for name in dict.fromkeys([*latest, *self._ended])
            if name in self._ended or self.answers or _is_cumulative(latest[name])
        }


def _merged(own: Family | None, of_processes: Sequence[Family | None], name: str) -> Family:
    if name in _OF_EVERY_PROCESS:
        return _merge([family or own for family in of_processes], min)
    first = next(family for family in (own, *of_processes) if family)
    rule = _RULES.get(name, sum if _is_cumulative(first) else max)
    return _merge([own, *of_processes], rule)


def _is_cumulative(family: Family) -> bool:
    return family.type in ("counter", "histogram")


def _merge(families: Sequence[Family | None], rule: Rule) -> Family:
    """Merge families of one name, of which at least one is not None."""
    present = [family for family in families if family]
    values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}
    for family in present:
        for sample in family.samples:
            series = sample.name, tuple(sorted(sample.labels.items()))
            values.setdefault(series, []).append(sample.value)
    first = present[0]
    merged = Family(first.name, first.documentation, first.type, first.unit)
    for (name, labels), each in values.items():
        merged.add_sample(name, dict(labels), rule(each))
    return merged
