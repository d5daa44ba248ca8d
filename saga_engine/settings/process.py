"""Settings of every process: the HTTP port, logging, and the time for a graceful shutdown."""

from typing import Annotated

from pydantic import BaseModel, Field

from saga_engine.settings.field_types import Seconds


class ProcessSettings(BaseModel):
    """What workers and participants have in common."""

    http_host: str = Field(
        "127.0.0.1", description="Address that serves /livez, /readyz, /startupz and /metrics"
    )
    http_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        9464,
        description="Port of these endpoints; 0 chooses a free one. The default is the port of"
        " OpenTelemetry's Prometheus exporters",
    )
    http_cache_ttl: Seconds = Field(
        1.0,
        description="Seconds for which a result of /readyz or /metrics is reused, so that frequent"
        " requests cost no more than one per interval",
    )
    log_format: Annotated[str, Field(pattern="^(auto|json|console)$")] = Field(
        "auto", description="json, console, or auto: console when stderr is a terminal"
    )
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = Field(
        "info", description="Lowest level that is logged"
    )
    log_throttle_interval: Seconds = Field(
        60.0,
        description="Seconds in which one failure of a handler is logged once as a warning, and one"
        " kind of connection event at most 5 times. Further ones are counted and logged at debug",
    )
    shutdown_timeout: Seconds = Field(
        25.0,
        description="Seconds for a graceful shutdown after SIGTERM; below Kubernetes' default"
        " terminationGracePeriodSeconds of 30",
    )
    process_restart_backoff: Seconds = Field(
        1.0,
        description="Seconds before a supervisor (--processes) starts a process again that ended;"
        " doubles with each one that ends. A start takes about a second of processor time",
    )
    process_restart_backoff_max: Seconds = Field(
        30.0,
        description="Maximum number of these seconds. After a process that ran for longer, the"
        " delays begin again",
    )
