"""Settings of feeds: how many events they publish at once."""

from typing import Annotated

from pydantic import BaseModel, Field


class FeedSettings(BaseModel):
    """How a feed publishes events."""

    feed_batch_size: Annotated[int, Field(ge=1, le=10_000)] = Field(
        500,
        description="Maximum number of events that a feed publishes before it saves its position."
        " After a crash so many are published again; larger batches are hardly faster",
    )
