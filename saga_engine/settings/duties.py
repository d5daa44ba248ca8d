"""Settings of what a worker does periodically: timers, the outbox, heartbeats, token keys."""

from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from saga_engine.settings.field_types import Seconds


class DutySettings(BaseModel):
    """How often a worker performs its duties, and after how long it acts for another worker."""

    poll_interval: Seconds = Field(
        0.1, description="Seconds between polls for due timers and pending requests when idle"
    )
    timer_lease: Seconds = Field(
        5.0,
        description="Seconds, beyond mapping_hard_timeout, for which a worker that takes a due"
        " timer keeps it from other workers. If the worker stops, another one takes the timer after"
        " that time. A call that ends the first one is known by then. A lease that is too short"
        " costs work, not correctness",
    )
    outbox_cleanup_interval: Seconds = Field(
        1.0,
        description="Seconds after which confirmed outbox rows are deleted even when no batch"
        " deletes them",
    )
    outbox_resend_after: Seconds = Field(
        8.0,
        description="Seconds after which an outbox row counts as left behind by a worker that"
        " stopped, and is sent again. Keep it above broker_confirm_timeout, or commands that are"
        " still awaiting their confirm are sent twice",
    )
    maintenance_interval: Seconds = Field(
        60.0, description="Seconds between updates of the backlog gauges and checks of partitions"
    )
    worker_heartbeat_interval: Seconds = Field(
        30.0,
        description="Seconds between heartbeats in which a worker records that it is running and"
        " which definitions it has. One heartbeat is one small UPDATE, shared by workers with the"
        " same definitions",
    )
    worker_heartbeat_timeout: Seconds = Field(
        120.0,
        description="Seconds without a heartbeat after which a definition counts as missing from"
        " the workers: `start_in_transaction` by name then chooses another version, and"
        " saga_starts_stranded"
        " counts the starts pinned to it. At least 3 times worker_heartbeat_interval, so that a"
        " worker may miss a heartbeat",
    )
    token_key_activation_delay: Seconds = Field(
        120.0,
        description="Seconds before a rotated token key signs commands. The default is twice the"
        " maintenance_interval at which workers read the keys, so that every worker knows the key"
        " before a reply with it arrives",
    )
    max_gauge_count: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        10_000,
        description="Maximum number of rows counted for one series of a backlog gauge. A gauge with"
        " this value means at least as many",
    )

    @model_validator(mode="after")
    def _check_heartbeat(self) -> Self:
        if self.worker_heartbeat_timeout < 3 * self.worker_heartbeat_interval:
            raise ValueError(
                "worker_heartbeat_timeout must be at least 3 times worker_heartbeat_interval"
            )
        return self
