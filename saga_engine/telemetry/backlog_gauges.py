"""The gauges of what is in PostgreSQL: every series is replaced with each count."""

from collections import defaultdict
from collections.abc import Mapping

from saga_engine.telemetry.events import BacklogCounted
from saga_engine.telemetry.metric_catalogue import METRIC_CATALOGUE, RUN_STATUS
from saga_engine.telemetry.metric_series import LabelNames, MetricSeries


def update_backlog_gauges(series: MetricSeries, names: LabelNames, event: BacklogCounted) -> None:
    """
    Show one count of the backlog.

    The gauges are created with the first count: a process that never counts must not report an
    empty backlog.
    """
    if "saga_runs" not in series:
        series.create(metric for metric in METRIC_CATALOGUE if metric.backlog)
    no_runs = {(saga, status): 0 for saga in names.sagas for status in RUN_STATUS.values}
    series.replace("saga_runs", {**no_runs, **event.runs})
    series.replace("saga_oldest_run_age_seconds", _by_saga(names, event.oldest_run_age_s))
    series.replace("saga_incidents_open", _incidents_open(names, event))
    starts_waiting = _by_saga(names, event.starts_awaiting_admission)
    series.replace("saga_starts_awaiting_admission", starts_waiting)
    series.replace("saga_starts_stranded", _by_saga(names, event.starts_stranded))
    dead_letters = {
        (names.code("reason", reason),): count for reason, count in event.dead_letters_open.items()
    }
    series.replace("saga_dead_letters_open", dead_letters)
    series.set("saga_messages_awaiting_definition", event.messages_awaiting_definition)
    series.set("saga_crash_suspects", event.crash_suspects)
    series.set("saga_outbox_pending", event.outbox_pending)
    series.set("saga_outbox_oldest_age_seconds", event.outbox_oldest_age_s)
    series.set("saga_timers_pending", event.timers_pending)
    series.set("saga_timer_oldest_overdue_seconds", event.timer_overdue_s)
    series.set("saga_runs_in_default_partition", event.runs_in_default_partition)


def _by_saga(names: LabelNames, values: Mapping[str, float]) -> Mapping[tuple[str], float]:
    """One series for each saga; 0 for the registered sagas that are not counted."""
    return {(saga,): value for saga, value in {**dict.fromkeys(names.sagas, 0), **values}.items()}


def _incidents_open(
    names: LabelNames, event: BacklogCounted
) -> Mapping[tuple[str, str, str], float]:
    """By saga, cause and step; a saga without any has one series, without cause and step."""
    counts: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for (saga, cause, step), number in event.incidents_open.items():
        counts[saga, names.code("cause", cause), names.step(saga, step)] += number
    sagas_without_incidents = names.sagas - {saga for saga, _, _ in counts}
    return {**{(saga, "", ""): 0.0 for saga in sagas_without_incidents}, **counts}
