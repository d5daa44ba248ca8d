"""
What follows from a decision: the commands to send, and the time to wake up.

The idempotency key of a command is made here, of its run, step, direction and round;
`store.recovery` makes the same one in SQL.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from saga_engine.decider.events import AttemptStarted, Event
from saga_engine.decider.run import Run, active_deadline
from saga_engine.saga.definition import Saga
from saga_engine.vocabulary import Command


def commands_to_send(run: Run, events: Sequence[Event]) -> Iterator[Command]:
    """The commands to send because of *events*; *run* has them applied."""
    for event in events:
        if isinstance(event, AttemptStarted):
            yield Command(
                run_id=run.run_id,
                saga=run.saga,
                version=run.version,
                step=event.step,
                direction=event.direction,
                attempt=event.attempt,
                name=event.command,
                idempotency_key=f"{run.run_id}/{event.step}/{event.direction}/{event.round}",
                payload=run.steps[event.step].progress_of(event.direction).payload,
                deadline=event.due_at,
            )


def wake_at(saga: Saga, run: Run) -> datetime | None:
    """When time will next change the run; None if only a message or a person can."""
    if run.status.is_finished:
        return None
    earliest = active_deadline(saga, run)
    for state in run.steps.values():
        for due_at in (state.action.due_at, state.compensation.due_at):
            if due_at is not None and (earliest is None or due_at < earliest):
                earliest = due_at
    return earliest
