"""Settings of a participant: its handlers, their timeouts, and its database."""

from pydantic import BaseModel, Field

from saga_engine.settings.field_types import Count, Seconds


class ParticipantSettings(BaseModel):
    """How a participant process runs handlers and delivers their replies."""

    participant_concurrency: Count = Field(
        20, description="Maximum number of handlers running at once in one participant process"
    )
    participant_prefetch: Count = Field(
        100,
        description="Maximum number of unacknowledged commands of one participant process: running,"
        " waiting for a handler, or replied to and not yet confirmed",
    )
    participant_batch_size: Count = Field(
        50,
        description="Maximum number of commands that share a transaction, in a participant with"
        " batch=True. Their locks are held until the last handler has ended",
    )
    participant_batch_wait: Seconds = Field(
        0.1,
        description="Seconds that a command waits for others while another batch of its participant"
        " is being executed, so that batches are few and large under load. It is a part of"
        " participant_batch_duration, so that slow handlers run side by side",
    )
    participant_batch_duration: Seconds = Field(
        0.25,
        description="Seconds after which a batch calls no further handler and commits; the other"
        " commands join the next batch. It bounds how long effects and replies wait for others",
    )
    participant_handler_timeout: Seconds = Field(
        60.0,
        description="Seconds one handler may take before it is cancelled; far below RabbitMQ's"
        " consumer timeout",
    )
    participant_cancel_timeout: Seconds = Field(
        5.0,
        description="Seconds a cancelled handler may take to end. After that its command is replied"
        " to, and the handler counts against participant_concurrency until it ends",
    )
    participant_database_probe_interval: Seconds = Field(
        0.5,
        description="Seconds between checks whether the participant's database is available again"
        " during an outage",
    )
    participant_statement_check_after: Seconds = Field(
        2.0,
        description="Seconds without an answer from PostgreSQL after which a participant asks, over"
        " another connection, whether the statement is still running. If it is not, it or its"
        " answer was lost, and the participant ends that connection",
    )
    participant_reply_retry_timeout: Seconds = Field(
        60.0,
        description="Seconds an unroutable reply is retried before its command is dead-lettered;"
        " far below RabbitMQ's consumer timeout",
    )
