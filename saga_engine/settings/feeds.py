"""Settings of feeds: how many events they publish at once, and how often."""

from typing import Annotated

from pydantic import BaseModel, Field

from saga_engine.settings.field_types import Seconds


class FeedSettings(BaseModel):
    """How a feed publishes events."""

    feed_batch_size: Annotated[int, Field(ge=1, le=10_000)] = Field(
        500,
        description="Maximum number of events that a feed publishes before it saves its position."
        " After a crash so many are published again; larger batches are hardly faster",
    )
    feed_interval: Seconds = Field(
        0.1,
        description="Seconds from one batch of a feed to the next while it is up to date. A batch"
        " takes about a millisecond of PostgreSQL's processor time and a commit, so shorter"
        " intervals cost the database more; events after a pause are published at once",
    )
