"""Settings of projections: their batches, their leases, and how soon they see an event."""

from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from saga_engine.settings.field_types import Count, Seconds


class ProjectionSettings(BaseModel):
    """How a projector reads events and fills tables."""

    projection_batch_seconds: Seconds = Field(
        0.05,
        description="Seconds that one transaction of a projection should take; the number of its"
        " events adapts. Longer ones fold more changes of a row into one, and add to the lag",
    )
    projection_batch_size: Annotated[int, Field(ge=1, le=10_000)] = Field(
        5000,
        description="Maximum number of events in one transaction of a projection. Larger batches"
        " are hardly faster, and their events are in memory",
    )
    projection_lease: Seconds = Field(
        5.0,
        description="Seconds after which another process takes over the projections and feeds of"
        " one that was killed. A process renews its leases in a third of that time",
    )
    event_poll_interval: Seconds = Field(
        0.02,
        description="Seconds between two looks for new events, while there are some: the smallest"
        " lag of a projection or a feed",
    )
    event_poll_interval_max: Seconds = Field(
        0.25,
        description="Seconds between two looks for new events, when there were none for a while",
    )
    read_model_interval: Seconds = Field(
        2.0,
        description="Seconds between two batches of the read models that `worker --events` runs. A"
        " batch costs about the same with one event as with a hundred; statistics are that late",
    )
    read_model_rebuild_timeout: Seconds = Field(
        3600.0,
        description="Seconds after which `projections rebuild` of a read model of the engine is"
        " given up, with nothing changed. It is one transaction, which reads all journals of runs",
    )
    max_parked_streams: Count = Field(
        1000,
        description="Maximum number of streams that a projection with on_poison='park-stream'"
        " parks. One more stops it: so many failures are hardly the fault of the events",
    )

    projection_rebuild_yield_lag: Seconds = Field(
        1.0,
        description="Seconds that the live tables of a projection may be behind while it is"
        " rebuilt. While they are more behind, the rebuild waits that long after each batch, at"
        " most a third of projection_lease. The default is what readers of a table hardly notice",
    )
    projection_switch_window: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000,
        description="Maximum number of positions that a rebuilt version may be behind when it is"
        " switched to: a second of work, for which the live one waits",
    )
    projection_switch_catch_up_timeout: Seconds = Field(
        2.0,
        description="Seconds for which the live version stands still during a switch, until the"
        " other one has caught up with it. It is twice what the switch window takes",
    )
    projection_switch_lock_timeout: Seconds = Field(
        0.5,
        description="Seconds that one attempt of a switch waits for those who read the tables; new"
        " readers wait behind it. Less than deadlock_timeout of PostgreSQL (1 s), which could end a"
        " reader of several tables instead",
    )
    projection_switch_timeout: Seconds = Field(
        30.0,
        description="Seconds after which a switch that gets no lock is given up: long enough for"
        " the usual reports, short enough to wait for the answer",
    )
    projection_previous_retention: Annotated[float, Field(ge=0.001, le=30 * 86_400)] = Field(
        86_400.0,
        description="Seconds for which the tables before a switch are kept and kept up to date, so"
        " that `projections switch --back` can return to them. They need as much disk as the live"
        " ones",
    )
    projection_monitor_interval: Seconds = Field(
        5.0,
        description="Seconds between two measurements of the horizon and of the lag of projections"
        " and feeds; each is a few statements that read one index entry for each of them",
    )
    projection_stall_timeout: Seconds = Field(
        30.0,
        description="Seconds after which a process is not ready when a projection or a feed it runs"
        " neither moves nor has reached the horizon. The default is six times the longest backoff",
    )
    horizon_hold_warning: Seconds = Field(
        5.0,
        description="Seconds after which horizon.held names the transaction that has appended and"
        " is still open: all projections and feeds wait for it",
    )

    @model_validator(mode="after")
    def _check_poll_intervals(self) -> Self:
        if self.event_poll_interval > self.event_poll_interval_max:
            raise ValueError("event_poll_interval must not exceed event_poll_interval_max")
        return self
