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
                idempotency_key=_idempotency_key(run, event.step, event.direction, event.round),
                payload=run.steps[event.step].progress_of(event.direction).payload,
                deadline=event.due_at,
            )


def commands_in_flight(run: Run, names: Mapping[tuple[str, Direction], str]) -> Iterator[Command]:
    """
    The commands that the run awaits, as they were sent.

    Args:
        names: the name of the command of each step and direction.
    """
    for step, state in run.steps.items():
        for direction in Direction:
            progress = state.progress_of(direction)
            if progress.status is StepStatus.IN_FLIGHT:
                assert progress.due_at is not None, "an attempt in flight times out"
                yield Command(
                    run_id=run.run_id,
                    saga=run.saga,
                    version=run.version,
                    step=step,
                    direction=direction,
                    attempt=progress.attempts,
                    name=names[step, direction],
                    idempotency_key=_idempotency_key(run, step, direction, progress.round),
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


def _idempotency_key(run: Run, step: str, direction: Direction, round_: int) -> str:
    return f"{run.run_id}/{step}/{direction}/{round_}"


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
