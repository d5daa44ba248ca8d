"""
What follows: once a trigger has been dealt with, the run goes forward, stops, or goes back.

Forward, every step starts whose predecessors have passed. A stop lets what is in flight settle and
starts nothing new. Backward, a step is compensated once every step that depended on it is undone,
so that in a sequence the order is the reverse and in a graph independent branches go side by side.
"""

from collections.abc import Iterator

from saga_engine.decider.decision import PASSED, Turn
from saga_engine.decider.events import (
    IncidentResolved,
    RunCompensated,
    RunCompensating,
    RunCompleted,
    RunStopping,
    StepGivenUp,
    StopOvertaken,
)
from saga_engine.decider.replies import ENGINE
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Direction, Outcome, Status


def advance(turn: Turn) -> None:
    """Record everything that follows from where the run stands now."""
    if turn.run.status is Status.RUNNING and turn.stopping:
        _stop(turn)
    if turn.run.status is Status.RUNNING and not turn.stopping:
        _forward(turn)
    if turn.run.status is Status.COMPENSATING:
        _backward(turn)


def _forward(turn: Turn) -> None:
    for name, before in turn.saga.after.items():
        if turn.step(name).action.status is not StepStatus.PENDING:
            continue
        if all(turn.step(earlier).action.status in PASSED for earlier in before):
            turn.send(name, Direction.ACTION)
    if all(step.action.status in PASSED for step in turn.run.steps.values()):
        replies = {name: turn.step(name).action.reply for name in turn.saga.steps}
        turn.record(RunCompleted(turn.now, replies))


def _stop(turn: Turn) -> None:
    for name in turn.saga.steps:
        if turn.step(name).action.status in (StepStatus.WAITING, StepStatus.BLOCKED):
            _let_go(turn, name)
    cause = turn.run.stop or turn.cause
    assert cause is not None  # `stopping` says so
    if any(step.action.status is StepStatus.IN_FLIGHT for step in turn.run.steps.values()):
        if turn.run.stop is None:
            turn.record(RunStopping(cause))
    elif turn.past_pivot:
        turn.record(StopOvertaken("The pivot had succeeded."))
        turn.cause = None
    else:
        turn.record(RunCompensating(cause))
        turn.cause = None


def _let_go(turn: Turn, name: str) -> None:
    incident = turn.incident_of(name, Direction.ACTION)
    if incident is not None:
        turn.record(IncidentResolved(incident.number, None, ENGINE, "the run turns back"))
    failure = turn.step(name).action.failure
    timed_out = failure is not None and failure.code == "timeout"
    turn.record(StepGivenUp(name, Outcome.UNKNOWN if timed_out else Outcome.FAILED))


def _backward(turn: Turn) -> None:
    for name in _due_to_be_undone(turn):
        if turn.saga.steps[name].undo is None:
            text = f"Step {name} may have taken effect and declares no compensation."
            turn.block(name, Direction.COMPENSATION, "not_compensatable", text)
        else:
            turn.send(name, Direction.COMPENSATION)
    if not any(_owed(turn, name) for name in turn.run.steps):
        turn.record(RunCompensated(turn.now))


def _due_to_be_undone(turn: Turn) -> Iterator[str]:
    for name in reversed(turn.saga.after):
        pending = turn.step(name).compensation.status is StepStatus.PENDING
        waits = any(_owed(turn, later) for later in turn.saga.descendants[name])
        if pending and _owed(turn, name) and not waits:
            yield name


def _owed(turn: Turn, name: str) -> bool:
    step = turn.step(name)
    return step.may_have_effect and not step.undone and not turn.saga.steps[name].read_only
