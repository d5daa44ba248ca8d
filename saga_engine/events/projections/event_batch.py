"""The events that a projection applies in one transaction, and what has become of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.poison_event import PoisonEvent
from saga_engine.events.projections.projection_failures import ParkedStream


@dataclass(frozen=True, slots=True)
class EventBatch:
    """
    Events of one transaction.

    Args:
        after: the checkpoint that they follow.
        until: the checkpoint after them.
        events: those that the projection handles, in the order of their positions.
    """

    after: int
    until: int
    events: Sequence[Recorded]


@dataclass(frozen=True, slots=True)
class StreamRetry:
    """
    Events of a parked stream, whose turn was earlier.

    Args:
        checkpoint: of the projection, which does not change.
        parked: the stream, as it was when the events were read.
        events: its next events up to the checkpoint, in order.
        following: where the stream continues after them; None: there are no more.
    """

    checkpoint: int
    parked: ParkedStream
    events: Sequence[Recorded]
    following: ParkedStream | None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """
    What has become of a batch.

    Args:
        position: the checkpoint now.
        poison: the events that could not be applied: each has parked its stream, or the only one
            has stopped the projection.
        stopped: whether it is stopped.
    """

    position: int
    poison: tuple[PoisonEvent, ...] = ()
    stopped: bool = False
