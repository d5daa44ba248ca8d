"""What became of a batch of messages, and the messages of it that are kept."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from saga_engine.events.consumers.changed_source import fingerprint, last_message
from saga_engine.events.consumers.interfaces import IncomingMessage
from saga_engine.events.consumers.kept_messages import FailureKind, NewFailure
from saga_engine.events.consumers.received import Received
from saga_engine.events.handlers.poison_event import PoisonEvent


@dataclass(slots=True, kw_only=True)
class BatchResult:
    """
    What became of a batch.

    Args:
        done: the messages that need not be delivered again.
        applied: how many events took effect.
        duplicates: how many were consumed before.
        late: how many of the applied ones came after a later one of their stream.
        passed: how many have a type that the consumer has no function for.
        kept: how many wait behind another one of their stream.
        failures: the messages that could not be applied or read, and why.
        stopped: whether the last of them has stopped the partition.
        last_event_at: the time of the last event that took effect.
        saved_at: when they were saved, on the clock of the database.
    """

    done: list[IncomingMessage] = field(default_factory=list)
    applied: int = 0
    duplicates: int = 0
    late: int = 0
    passed: int = 0
    kept: int = 0
    failures: list[NewFailure] = field(default_factory=list)
    stopped: bool = False
    last_event_at: datetime | None = None
    saved_at: datetime | None = None

    @property
    def next_offset(self) -> int | None:
        """The first offset after these messages; None in a source without offsets."""
        ends = [each.offset + each.count for each in self.done if each.offset is not None]
        return max(ends, default=None)

    @property
    def last_message(self) -> UUID | None:
        """What is stored of the message before that; None in a source without offsets."""
        with_offset = [each for each in self.done if each.offset is not None]
        return last_message(with_offset[-1]) if with_offset else None

    def add(self, other: "BatchResult") -> None:
        """Add what became of the messages after these."""
        self.done += other.done
        self.applied += other.applied
        self.duplicates += other.duplicates
        self.late += other.late
        self.passed += other.passed
        self.kept += other.kept
        self.failures += other.failures
        self.stopped = other.stopped
        if other.last_event_at:
            self.last_event_at, self.saved_at = other.last_event_at, other.saved_at

    @property
    def delay_s(self) -> float | None:
        """Seconds from the last event until its effect; None: no event took effect."""
        if self.last_event_at is None or self.saved_at is None:
            return None
        return max(0.0, (self.saved_at - self.last_event_at).total_seconds())


def waiting_message(event: Received, message: IncomingMessage) -> NewFailure:
    """Make what is kept of an event that waits behind another one of its stream."""
    return NewFailure(
        kind=FailureKind.WAITING,
        event=event.key,
        stream=event.stream,
        event_id=event.source_id,
        type=event.type,
        message=message,
    )


def unreadable_message(message: IncomingMessage, problem: str) -> NewFailure:
    """Make what is kept of a message that cannot be read; the same message is kept once."""
    return NewFailure(
        kind=FailureKind.UNREADABLE,
        event=fingerprint(message),
        error=problem,
        message=message,
    )


def failed_event(poison: PoisonEvent) -> NewFailure:
    """Make the failure of an event that stops its partition; its message stays in the source."""
    event = poison.recorded
    assert isinstance(event, Received), "a consumer's events are received"
    return NewFailure(
        kind=FailureKind.STOPPED,
        event=event.key,
        stream=event.stream,
        event_id=event.source_id,
        type=event.type,
        error=poison.error,
        trace=poison.trace,
    )
