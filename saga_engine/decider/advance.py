"""
What follows a trigger: the run goes forward, stops, or compensates.

Forward, each step starts whose predecessors have passed. A stop lets the steps in flight settle and
starts no new one. Backward, a step is compensated when every step that depended on it is: in a
sequence this is the reverse order, and in a graph independent branches compensate side by side.
"""

from collections.abc import Iterator

from saga_engine.decider.decision import DecisionBuilder
from saga_engine.decider.events import (
    RunCompensated,
    RunCompensating,
    RunCompleted,
    RunStopping,
    StepGivenUp,
    StopSuperseded,
)
from saga_engine.decider.run import PASSED, CompensationCause, StepStatus
from saga_engine.vocabulary import Direction, EngineFailureCode, IncidentCause, Outcome, Status


def advance(builder: DecisionBuilder) -> None:
    """
    Record what follows from where the run is now.

    A running run goes forward, or stops if there is a cause; after the stop it compensates, or goes
    forward if the pivot has succeeded. A compensating run compensates. Any other run is finished.
    """
    status, cause = builder.run.status, builder.stop_cause
    if status is Status.RUNNING and cause is not None:
        _stop(builder, cause)
    elif status is Status.RUNNING:
        _go_forward(builder)
    elif status is Status.COMPENSATING:
        _compensate(builder)


def _stop(builder: DecisionBuilder, cause: CompensationCause) -> None:
    """Wait for the steps in flight; then compensate, or go forward if the pivot succeeded."""
    for name in builder.saga.steps:
        if builder.step(name).action.status in (StepStatus.AWAITING_RETRY, StepStatus.BLOCKED):
            _give_up(builder, name)
    if any(step.action.status is StepStatus.IN_FLIGHT for step in builder.run.steps.values()):
        if builder.run.stopping_cause is None:
            builder.record(RunStopping(cause))
    elif builder.past_pivot:
        builder.record(StopSuperseded("The pivot had succeeded."))
        _go_forward(builder)
    else:
        builder.record(RunCompensating(cause))
        _compensate(builder)


def _give_up(builder: DecisionBuilder, name: str) -> None:
    builder.close_obsolete_incident(name, Direction.ACTION, "the run compensates")
    failure = builder.step(name).action.failure
    timed_out = failure is not None and failure.engine_code is EngineFailureCode.TIMEOUT
    builder.record(StepGivenUp(name, Outcome.UNKNOWN if timed_out else Outcome.FAILED))


def _go_forward(builder: DecisionBuilder) -> None:
    for name, predecessors in builder.saga.predecessors.items():
        if builder.step(name).action.status is not StepStatus.PENDING:
            continue
        if all(builder.step(earlier).action.status in PASSED for earlier in predecessors):
            builder.start_attempt(name, Direction.ACTION)
    if all(step.action.status in PASSED for step in builder.run.steps.values()):
        replies = {name: builder.step(name).action.reply for name in builder.saga.steps}
        builder.record(RunCompleted(builder.now, replies))


def _compensate(builder: DecisionBuilder) -> None:
    for name in _steps_to_compensate(builder):
        if builder.saga.steps[name].compensation_spec is None:
            text = f"Step {name} may have taken effect and declares no compensation."
            cause = IncidentCause.NOT_COMPENSATABLE
            builder.open_incident(name, Direction.COMPENSATION, cause, text)
        else:
            builder.start_attempt(name, Direction.COMPENSATION)
    if not any(_needs_compensation(builder, name) for name in builder.run.steps):
        builder.record(RunCompensated(builder.now))


def _steps_to_compensate(builder: DecisionBuilder) -> Iterator[str]:
    for name in reversed(builder.saga.steps):
        pending = builder.step(name).compensation.status is StepStatus.PENDING
        has_uncompensated_dependents = any(
            _needs_compensation(builder, later) for later in builder.saga.descendants[name]
        )
        if pending and _needs_compensation(builder, name) and not has_uncompensated_dependents:
            yield name


def _needs_compensation(builder: DecisionBuilder, name: str) -> bool:
    state, read_only = builder.step(name), builder.saga.steps[name].read_only
    return state.may_have_effect and not state.compensation_done and not read_only
