"""Settings of consumers: their batches, what they remember, and how much waits for a correction."""

from typing import Annotated

from pydantic import BaseModel, Field

from saga_engine.settings.field_types import Count, Seconds


class ConsumerSettings(BaseModel):
    """How a consumer receives and applies events."""

    consumer_batch_size: Annotated[int, Field(ge=1, le=10_000)] = Field(
        500,
        description="Maximum number of messages that a consumer applies in one transaction; the"
        " number adapts to projection_batch_seconds. Larger batches are hardly faster",
    )
    consumer_concurrency: Annotated[int, Field(ge=1, le=1000)] = Field(
        4,
        description="Maximum number of partitions of one consumer whose messages a process applies"
        " at the same time; the others wait. Each takes a connection to the database",
    )
    consumer_prefetch: Annotated[int, Field(ge=1, le=65_535)] = Field(
        1000,
        description="Maximum number of messages of each partition that a consumer has received and"
        " not applied: two batches, so that one arrives while the other is applied",
    )
    consumer_partition_interval: Seconds = Field(
        60.0,
        description="Seconds between two looks whether a stream or a topic has more partitions,"
        " which are then consumed, too. A look is one request for each partition",
    )
    consumed_event_retention: Annotated[float, Field(ge=60.0, le=10 * 365 * 86_400)] = Field(
        14 * 86_400.0,
        description="Seconds for which a consumer knows the ids of the events that it has applied,"
        " about 100 bytes each. One that is published again after that time takes effect again: it"
        " is longer than an outage, or the retention of a stream that is read again",
    )
    max_consumer_failures: Count = Field(
        10_000,
        description="Maximum number of messages of each partition that are kept because they cannot"
        " be read or applied, or wait behind such a one. One more stops the partition",
    )
