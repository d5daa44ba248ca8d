"""Which metrics the telemetry events of consumers change."""

from collections.abc import Collection, Mapping
from typing import Any

from saga_engine.telemetry import events, metric_catalogue
from saga_engine.telemetry.metric_series import EventHandlers, LabelNames, MetricSeries


class ConsumerMetrics:
    """
    The metrics of consumers.

    Args:
        series: of the registry.
        names: that may be label values.
    """

    def __init__(self, series: MetricSeries, names: LabelNames) -> None:
        self._series = series
        self._names = names

    def handlers(self) -> EventHandlers:
        """Return what each event does."""
        return {
            events.ConsumersRegistered: self._registered,
            events.ConsumerBatchApplied: self._batch_applied,
            events.ConsumersMeasured: self._measured,
            events.ConsumerStopped: lambda e: self._failed(e, "stopped"),
            events.ConsumerMessageKept: lambda e: self._failed(e, e.kind),
        }

    def _registered(self, event: events.ConsumersRegistered) -> None:
        """Allow the names of consumers as label values, and set their counters to 0."""
        self._names.register_consumers(event.consumers)
        for consumer in event.consumers:
            self._count(consumer, metric_catalogue.CONSUMER_OUTCOME.values, 0)
            self._series.increment("saga_consumer_late_events_total", consumer, amount=0)
            for kind in metric_catalogue.CONSUMER_FAILURE.values:
                self._series.increment("saga_consumer_failures_total", consumer, kind, amount=0)

    def _count(self, consumer: str, outcomes: Collection[str], number: int) -> None:
        for outcome in outcomes:
            self._series.increment("saga_consumer_events_total", consumer, outcome, amount=number)

    def _batch_applied(self, event: events.ConsumerBatchApplied) -> None:
        consumer = self._names.consumer(event.consumer)
        self._count(consumer, ["applied"], event.applied)
        self._count(consumer, ["duplicate"], event.duplicates)
        self._series.increment("saga_consumer_late_events_total", consumer, amount=event.late)
        self._count(consumer, ["passed"], event.passed)
        self._count(consumer, ["kept"], event.kept)
        self._series.observe("saga_consumer_batch_duration_seconds", event.duration_s, consumer)
        if event.delay_s is not None:
            self._series.set("saga_consumer_delay_seconds", event.delay_s, consumer)

    def _measured(self, event: events.ConsumersMeasured) -> None:
        for (name, state), number in event.partitions.items():
            consumer = self._names.consumer(name)
            self._series.set("saga_consumer_partitions", number, consumer, state)
        gauges: Mapping[str, Mapping[str, float]] = {
            "saga_consumer_waiting_messages": event.waiting,
            "saga_consumer_lag_seconds": event.lag_s,
            "saga_consumer_kept_messages": event.kept,
            "saga_consumer_parked_streams": event.parked_streams,
            "saga_consumer_partitions_without_owner": event.without_owner,
            "saga_consumer_partitions_unavailable": event.unavailable,
        }
        for gauge, values in gauges.items():
            for name, value in values.items():
                self._series.set(gauge, value, self._names.consumer(name))

    def _failed(self, event: Any, kind: str) -> None:
        name = self._names.consumer(event.consumer)
        self._series.increment("saga_consumer_failures_total", name, kind)
