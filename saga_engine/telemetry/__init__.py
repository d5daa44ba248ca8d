"""
Telemetry events, and what is made of them: log lines, metrics and the HTTP port.

    events/             what happened, as frozen records; the emitter hands them to observers
    operations          what a process was doing when something failed: log key and metric label
    logs                an observer that writes events as log lines; the format of all log lines
    nonblocking_stream  writes log lines without waiting for a slow reader
    redaction           removes passwords, and escapes characters that forge lines
    throttle            limits repeated lines, and counts the suppressed ones
    metric_catalogue    every metric: name, kind, labels and their values, buckets, help
    metrics             an observer that counts events in Prometheus metrics
    merged_metrics      the metrics of several processes as one exposition
    exposition          the text for /metrics
    consumer_metrics    the part of it for consumers
    metric_series       the series of a registry, and the names that may be label values
    backlog_gauges      the gauges of what is in PostgreSQL
    endpoint            the HTTP port: /livez, /readyz, /startupz and /metrics

To add an event: a class in a module of `events/`, its name in `events/telemetry_event.py` and
`events/__init__.py`, a line in `logs.LOG_EVENTS`, a sample in tests/telemetry/event_samples.py, a
row in docs/telemetry.md.
To add a log key: a field of the event; the field's name is the key.
To add a metric: a line in `metric_catalogue`, its event in `metrics` (a count of rows: in
`backlog_gauges`), a row in docs/telemetry.md.
"""
