"""Settings of partitions, of the age of run ids, and of how long rows are kept."""

from typing import Annotated

from pydantic import BaseModel, Field

from saga_engine.settings.field_types import Count, Seconds


class RetentionSettings(BaseModel):
    """Which monthly partitions exist, and when runs, dead letters and audit rows are deleted."""

    partition_months_ahead: Annotated[int, Field(ge=1, le=60)] = Field(
        12,
        description="Number of months after the current one that have partitions. Workers may be"
        " stopped for that long before new runs go to the default partition, which is never"
        " dropped",
    )
    partition_lock_timeout: Seconds = Field(
        0.2,
        description="Seconds one attempt to create or drop a partition waits for a table lock."
        " Statements of the workers queue behind a waiting lock, so it is released and tried again",
    )
    partition_lock_attempts: Count = Field(
        20,
        description="Number of attempts to get that lock before the next maintenance interval tries"
        " again",
    )
    max_run_id_age_days: Annotated[int, Field(ge=1, le=28)] = Field(
        7,
        description="Maximum age, in days, of a run id that a client made; older starts are"
        " refused. A request may wait in the queue for as long. Older ids may belong to a month"
        " that has been dropped",
    )
    max_run_id_clock_skew: Seconds = Field(
        86_400.0,
        description="Seconds a run id may be ahead of the database's clock, because the clocks of"
        " clients differ",
    )
    run_retention_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        0, description="Minimum number of days finished runs are kept; 0 keeps them forever"
    )
    retention_hold: Annotated[float, Field(ge=0.001, le=31_536_000)] = Field(
        604_800.0,
        description="Seconds for which an expired month of runs is kept for a projection or a feed"
        " that has not read it and does not move. Then the month is dropped, and the projection or"
        " feed is marked as incomplete. The default is a week, in which an alert is seen",
    )
    max_open_dead_letters_per_source: Count = Field(
        10_000,
        description="Maximum number of open dead letters kept for one queue, reason and sender."
        " Further ones are counted in the table dead_letter_dropped and not kept, so that a sender"
        " cannot fill the database",
    )
    dead_letter_retention_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        30,
        description="Number of days dead letters are kept after they were sent again or discarded;"
        " 0 keeps them forever. Open ones wait for an operator; `dead-letters purge` deletes those"
        " too",
    )
    audit_retention_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        730, description="Number of days the audit log is kept; 0 keeps it forever"
    )
