"""Settings of how much a worker takes at once: prefetch, batches, concurrent runs."""

from typing import Annotated

from pydantic import BaseModel, Field

from saga_engine.settings.field_types import Bytes, Count, Seconds

MAX_REPLY_QUEUES = 32


class BatchSettings(BaseModel):
    """What bounds a worker's memory, its transactions and the runs in flight."""

    reply_prefetch: Count = Field(
        500,
        description="Maximum number of unacknowledged replies of one worker, of all its"
        " queues. Multiplied by"
        " max_body_bytes it bounds the worker's memory. The default exceeds what its concurrent"
        " batches take",
    )
    reply_queues: Annotated[int, Field(ge=1, le=MAX_REPLY_QUEUES)] = Field(
        1,
        description="Number of queues of replies. The replies to a run always come to the same one,"
        " and each queue has one worker as its owner, which has the run in its memory. With 1 all"
        " workers share one queue. Choose a multiple of the number of workers, for example twice as"
        " many; every worker must have the same: see docs/operations.md",
    )
    request_prefetch: Count = Field(
        200,
        description="Maximum number of unacknowledged requests of one worker. One batch is enough:"
        " requests come from outside and must not crowd out replies",
    )
    dead_letter_prefetch: Count = Field(
        50,
        description="Maximum number of unacknowledged dead letters of one worker; none is urgent",
    )
    batch_size: Count = Field(
        200,
        description="Maximum number of triggers in one transaction. Throughput does not change"
        " measurably between 200 and 500",
    )
    max_batch_bytes: Bytes = Field(
        4_194_304,
        description="Maximum total size, in bytes, of the message bodies, or of the runs, in one"
        " transaction and in one write to the broker: 200 messages of 20 KB. A larger single"
        " message or run is processed alone",
    )
    run_cache_bytes: Annotated[int, Field(ge=0)] = Field(
        67_108_864,
        description="Memory, in bytes, for the runs that a worker keeps between two of their steps,"
        " so that it need not read them again: about 15,000 runs of three small steps. 0 keeps"
        " none. Behind a connection pooler none is kept: it may lead to another server unseen",
    )
    run_snapshot_interval: Count = Field(
        100,
        description="Number of rows of a run's journal after which a snapshot of the run is stored"
        " with the next one. To read a run, a worker applies the rows after its snapshot: 100 rows"
        " take about 3 milliseconds. Most runs finish before their first snapshot",
    )
    run_snapshot_bytes: Annotated[int, Field(ge=1024, le=67_108_864)] = Field(
        4_194_304,
        description="Size, in bytes, of the rows of a run's journal after its snapshot, from which"
        " on a snapshot is stored with the next row, however few rows they are. PostgreSQL returns"
        " the rows of a run as one value, of at most 1 GB. The default is that of max_batch_bytes:"
        " a run with more is processed alone",
    )
    max_batch_json_values: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        20_000,
        description="Maximum number of JSON values in the bodies of one transaction, counted as for"
        " max_body_json_values: 200 messages of 100 values. Decoding and validating that many takes"
        " about 0.1 seconds",
    )
    max_concurrent_batches: Count = Field(
        4,
        description="Maximum number of concurrent transactions: one batch computes while the others"
        " wait for their commit",
    )
    max_concurrent_runs: Count = Field(
        1000,
        description="Maximum number of concurrent runs of one saga; further starts wait in"
        " PostgreSQL for a slot. Below this limit the engine adapts the number of slots to how soon"
        " replies arrive: see docs/operations.md",
    )
    max_pending_requests_per_run: Count = Field(
        10,
        description="Maximum number of requests, such as cancels, that are stored for one accepted"
        " run that waits for a slot. The first of them decides; more are refused",
    )
    idle_run_threshold: Seconds = Field(
        60.0,
        description="A run whose next timer is further away than this many seconds, or that waits"
        " for an operator, does not occupy a slot. Where the longest timeout of the saga (up to an"
        " hour) is larger, that value applies",
    )
