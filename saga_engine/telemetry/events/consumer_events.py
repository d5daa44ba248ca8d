"""Telemetry events about consumers: which process runs them, and what they cannot apply."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumersRegistered:
    """This process can run these consumers."""

    consumers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerAcquired:
    """This process has become the owner of a partition, and continues at `next_offset`."""

    consumer: str
    partition: int
    next_offset: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerBatchApplied:
    """
    A batch of messages is consumed.

    Args:
        consumer: its name.
        applied: how many events took effect.
        duplicates: how many were consumed before.
        late: how many of the applied ones came after a later one of their stream.
        passed: how many have a type that the consumer has no function for.
        kept: how many wait behind another one of their stream.
        duration_s: of the transaction.
        delay_s: from the time of the last event until its effect; None: none took effect.
    """

    consumer: str
    applied: int
    duplicates: int
    late: int
    passed: int
    kept: int
    duration_s: float
    delay_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStopped:
    """An event cannot be applied, so its partition waits for an operator to retry or skip it."""

    consumer: str
    partition: int
    stream: str
    event_type: str
    problem: str
    next_command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerMessageKept:
    """A message cannot be applied or read, and is kept for an operator; `kind` says which."""

    consumer: str
    partition: int
    kind: str
    stream: str
    event_type: str
    problem: str
    next_command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSourceUnavailable:
    """A partition cannot be consumed now; it is tried again."""

    consumer: str
    partition: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPartitionsFound:
    """The source of a consumer has more partitions than before, which are consumed from now on."""

    consumer: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumersMeasured:
    """
    How far the consumers are that this process declares.

    Every process measures the same database, so aggregate the metrics with max, never with sum.

    Args:
        partitions: how many partitions of a consumer are in a state.
        waiting: of each consumer, the messages behind those that were consumed; one whose source is
            unavailable is left out.
        lag_s: of each consumer of a stream or a topic, the age of the oldest of them.
        kept: of each consumer, the messages that are kept for an operator.
        parked_streams: of each consumer, the streams that wait for an operator.
        without_owner: of each consumer, the active partitions that no process consumes.
        unavailable: of each consumer, the partitions that this process cannot consume because of
            their source.
    """

    partitions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    lag_s: Mapping[str, float] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    parked_streams: Mapping[str, int] = field(default_factory=dict)
    without_owner: Mapping[str, int] = field(default_factory=dict)
    unavailable: Mapping[str, int] = field(default_factory=dict)
