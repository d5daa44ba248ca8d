"""
Decision, and DecisionBuilder, which makes one.

The parts of `decide` (replies, operator, advance) read the builder's run and record more events,
most of them through StepInDirection (step_in_direction.py).
"""

from dataclasses import dataclass
from datetime import datetime

from saga_engine.decider.events import Event
from saga_engine.decider.payloads import DecisionPayloads
from saga_engine.decider.run import CompensationCause, Run
from saga_engine.payload.guard import UserCodeError
from saga_engine.payload.ports import PayloadPorts
from saga_engine.saga.definition import Saga
from saga_engine.vocabulary import IgnoredReason

MAX_MESSAGE_LENGTH = 500
"""Characters of an error's text that are kept in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """
    What follows from one trigger.

    `events` in order, and `run` with all of them applied (None only if there is no run).
    `ignored_reason`: why the trigger changed nothing. `refusal`: a sentence for the sender.
    `code_errors`: calls into the author's code that returned no value.
    """

    run: Run | None
    events: tuple[Event, ...] = ()
    ignored_reason: IgnoredReason | None = None
    refusal: str | None = None
    code_errors: tuple[UserCodeError, ...] = ()


class DecisionBuilder:
    """
    One decision about a run at *now*, under *saga*: the object that all rules record events in.

    `run` has every recorded event applied. `stop_cause` is why the run must compensate: that of the
    run, if an earlier decision has found one, or the one that this decision finds. `advance` acts
    on it; if it has to wait for a step in flight, it records the cause in the run.
    """

    def __init__(self, saga: Saga, run: Run, now: datetime, ports: PayloadPorts) -> None:
        self.saga = saga
        self.run = run
        self.now = now
        self.payloads = DecisionPayloads(saga, run.run_id, ports)
        self.events: list[Event] = []
        self.stop_cause = run.stop_cause

    def record(self, event: Event) -> None:
        """Add an event and apply it to the run, which the first event copies."""
        if not self.events:
            self.run = self.run.copy()
        event.apply(self.run)
        self.events.append(event)

    @property
    def is_stopping(self) -> bool:
        """Whether the run must compensate, and does not yet."""
        return self.stop_cause is not None

    def stop(self, cause: CompensationCause) -> None:
        """Have `advance` make the run compensate, once no step is in flight."""
        assert self.stop_cause is None, "the first cause counts"
        self.stop_cause = cause

    def decision(
        self, *, ignored_reason: IgnoredReason | None = None, refusal: str | None = None
    ) -> Decision:
        return Decision(
            run=self.run,
            events=tuple(self.events),
            ignored_reason=ignored_reason,
            refusal=refusal,
            code_errors=tuple(self.payloads.code_errors),
        )
