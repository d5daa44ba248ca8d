"""The metrics of several processes are shown as those of one."""

import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from saga_engine.telemetry import events
from saga_engine.telemetry.merged_metrics import MergedMetrics
from saga_engine.telemetry.metrics import Metrics
from saga_engine.vocabulary import ConnectionRole, ConnectionState, Program
from tests.telemetry.event_samples import SAMPLES
from tests.telemetry.exposition import promtool

READY = events.ProcessReady(program=Program.WORKER)


def lag(seconds):
    return events.EventLoopLagMeasured(lag_s=seconds)


class Process:
    """A process of the supervisor whose metrics are `merged`."""

    def __init__(self, merged, number):
        self._merged, self._number = merged, number
        self._metrics = Metrics()

    def report(self, *emitted):
        for event in emitted:
            self._metrics(event)
        self._merged.record(self._number, self._metrics.render()[0].decode())

    def hang(self):
        self._merged.record(self._number, None)

    def end(self):
        self._merged.record_end(self._number)
        self._metrics = Metrics()


@pytest.fixture
def merged():
    return MergedMetrics(2)


@pytest.fixture
def processes(merged):
    return Process(merged, 1), Process(merged, 2)


def value(merged, name, **labels):
    shown = families(merged.render()[0].decode())
    samples = [each for family in shown for each in family.samples]
    values = [each.value for each in samples if (each.name, each.labels) == (name, labels)]
    assert len(values) <= 1
    return values[0] if values else None


def test_counters_and_histograms_are_summed(merged, processes):
    first, second = processes
    first.report(events.WatchdogLost(problem="It ended."), lag(0.002))
    second.report(events.WatchdogLost(problem="It ended."), lag(0.2), lag(0.3))

    assert value(merged, "saga_watchdogs_lost_total") == 2
    assert value(merged, "saga_event_loop_lag_seconds_count") == 3
    assert value(merged, "saga_event_loop_lag_seconds_sum") == pytest.approx(0.502)
    assert value(merged, "saga_event_loop_lag_seconds_bucket", le="0.0025") == 1
    assert value(merged, "saga_event_loop_lag_seconds_bucket", le="+Inf") == 3


def test_what_an_ended_process_counted_is_kept(merged, processes):
    first, second = processes
    first.report(lag(0.1), lag(0.1))
    second.report(lag(0.1))
    for _ in range(2):
        first.end()
        assert value(merged, "saga_event_loop_lag_seconds_count") >= 3
        first.report(lag(0.1))

    assert value(merged, "saga_event_loop_lag_seconds_count") == 5


def test_a_process_that_does_not_answer_keeps_its_counters_and_has_no_gauges(merged, processes):
    first, second = processes
    first.report(READY, lag(0.1))
    second.report(READY)
    assert value(merged, "saga_process_ready") == 1
    first.hang()

    assert value(merged, "saga_process_ready") == 0
    assert value(merged, "saga_event_loop_lag_seconds_count") == 1


def test_what_every_process_counts_in_postgresql_is_not_summed(merged, processes):
    for process, open_starts in zip(processes, (7, 8), strict=True):
        process.report(events.BacklogCounted(outbox_pending=open_starts))

    assert value(merged, "saga_outbox_pending") == 8


def test_the_events_of_the_whole_database_are_not_summed_and_never_decrease(merged, processes):
    def appended(number):
        return events.ProjectionsMeasured(appended=number, horizon=9, horizon_age_s=0.0)

    for process in processes:
        process.report(appended(5))
        process.end()
        process.report(appended(1))

    assert value(merged, "saga_events_appended_total") == 6


def test_all_are_ready_and_connected_only_if_each_is(merged, processes):
    first, second = processes
    connected = events.BrokerConnectionChanged(
        connection=ConnectionRole.PUBLISH, state=ConnectionState.CONNECTED, generation=1
    )
    first.report(READY, connected)
    labels = {"connection": "publish"}
    assert value(merged, "saga_process_ready") == 0
    assert value(merged, "saga_broker_connected", **labels) == 0
    second.report(READY, connected)
    assert value(merged, "saga_process_ready") == 1
    assert value(merged, "saga_broker_connected", **labels) == 1


def test_the_memory_is_that_of_all_processes(merged, processes):
    alone = value(merged, "process_resident_memory_bytes")
    for process in processes:
        process.report()

    assert value(merged, "process_resident_memory_bytes") > 2 * alone


def test_the_series_are_those_of_one_process(merged, processes):
    alone = Metrics()
    for event in SAMPLES:
        alone(event)
    for process in processes:
        process.report(*SAMPLES)

    def series(metrics):
        shown = families(metrics.render()[0].decode())
        return [
            (family.name, family.type, family.documentation, sample.name, sample.labels)
            for family in shown
            for sample in family.samples
        ]

    def in_order(listed):
        return sorted(listed, key=str)

    assert in_order(series(merged)) == in_order(series(alone))


def test_promtool_and_openmetrics_accept_the_exposition(merged, processes):
    for process in processes:
        process.report(*SAMPLES)
        process.end()
        process.report(*SAMPLES)
    checked = subprocess.run(
        [promtool(), "check", "metrics"],
        input=merged.render()[0],
        capture_output=True,
        check=False,
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    body, kind = merged.render("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert {family.name for family in open_families(body.decode())} >= {"saga_runs_started"}


def test_the_supervisor_counts_lost_processes(merged):
    merged(events.ProcessLost(process=1, problem="it was ended by SIGKILL", delay_s=1.0))

    assert value(merged, "saga_processes_lost_total") == 1
