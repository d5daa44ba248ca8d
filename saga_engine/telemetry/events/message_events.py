"""Telemetry events about messages: consumed, processed in batches, published, or not processed."""

from dataclasses import dataclass

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import PublishOutcome
from saga_engine.vocabulary import IgnoredReason


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesConsumed:
    """Messages arrived together from one queue; `redelivered` of them had been delivered before."""

    queue: str
    messages: int
    redelivered: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProcessed:
    """A batch of triggers was decided and written, then committed, then published."""

    triggers: int
    decide_s: float
    commit_s: float
    publish_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesPublished:
    """The broker answered `messages` publishes with the same `outcome`."""

    exchange: str
    outcome: PublishOutcome
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageIgnored:
    """A message changed nothing, which is normal: `reason` is, for example, duplicate or late."""

    reason: IgnoredReason
    saga: str = ""
    run_id: str = ""
    message_id: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHeld:
    """A message was stored in PostgreSQL until a worker has the definition of its run."""

    saga: str
    version: int | None
    run_id: str
    message_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDeadLettered:
    """A message from `queue` was dead-lettered; `problem` explains the `reason` in a sentence."""

    queue: str
    reason: DeadLetterReason
    problem: str = ""
    run_id: str = ""
    message_id: str = ""
    correlation_id: str = ""
