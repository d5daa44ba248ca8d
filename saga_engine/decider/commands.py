"""
What follows from a decision: the commands to send, and the time to wake up.

The idempotency key of a command is made here, of its run, step, direction and round.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from saga_engine.decider.events import AttemptStarted, Event
from saga_engine.decider.run import Run, StepStatus, active_deadline
from saga_engine.saga.definition import Saga
from saga_engine.vocabulary import Command, Direction


def commands_to_send(run: Run, events: Sequence[Event]) -> Iterator[Command]:
    """The commands to send because of the *events* of a decision; *run* is the run after it."""
    for event in events:
        if isinstance(event, AttemptStarted):
            yield _command_in_flight(run, event.step, event.direction, event.command)


def commands_in_flight(run: Run, names: Mapping[tuple[str, Direction], str]) -> Iterator[Command]:
    """
    The commands that the run awaits, as they were sent.

    Args:
        names: the name of the command of each step and direction.
    """
    for step, state in run.steps.items():
        for direction in Direction:
            if state.progress_of(direction).status is StepStatus.IN_FLIGHT:
                yield _command_in_flight(run, step, direction, names[step, direction])


def _command_in_flight(run: Run, step: str, direction: Direction, name: str) -> Command:
    progress = run.steps[step].progress_of(direction)
    assert progress.due_at is not None, "an attempt in flight times out"
    return Command(
        run_id=run.run_id,
        saga=run.saga,
        version=run.version,
        step=step,
        direction=direction,
        attempt=progress.attempts,
        name=name,
        idempotency_key=f"{run.run_id}/{step}/{direction}/{progress.round}",
        payload=progress.payload,
        deadline=progress.due_at,
    )


def is_awaited(run: Run, command: Command) -> bool:
    """Whether the run still waits for the reply to this attempt."""
    state = run.steps.get(command.step)
    if state is None:
        return False
    progress = state.progress_of(command.direction)
    return progress.status is StepStatus.IN_FLIGHT and progress.attempts == command.attempt


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
