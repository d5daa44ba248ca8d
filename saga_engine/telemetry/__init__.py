"""
What is told: facts, and what becomes of them in logs, in metrics and on the HTTP port.

    events               what happened: frozen records handed to plain callables
    logs                 facts as log lines
    nonblocking_stream   where log lines leave the process, without waiting for their reader
    redaction            what must not be shown: passwords, and characters that forge lines
    metric_catalogue     every metric's name, kind, labels, buckets and help
    throttle             what repeats: reported a few times, then now and then with a count
    metrics              facts as metrics, in a registry of their own
    endpoint             the HTTP port: /livez, /readyz, /startupz and /metrics
"""
