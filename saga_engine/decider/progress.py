"""
What follows: once a trigger has been dealt with, the run goes forward, stops, or goes back.

Forward, every step starts whose predecessors have passed. A stop lets what is in flight settle and
starts nothing new. Backward, a step is compensated once every step that depended on it is undone,
so that in a sequence the order is the reverse and in a graph independent branches go side by side.
"""

from collections.abc import Iterator

from saga_engine.decider.decision import PASSED_STATUSES, DecisionBuilder
from saga_engine.decider.events import (
    IncidentResolved,
    RunCompensated,
    RunCompensating,
    RunCompleted,
    RunStopping,
    StepGivenUp,
    StopSuperseded,
)
from saga_engine.decider.replies import ENGINE_NAME
from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Direction, Outcome, Status


def advance(builder: DecisionBuilder) -> None:
    """Record everything that follows from where the run stands now."""
    if builder.run.status is Status.RUNNING and builder.stopping:
        _stop_run(builder)
    if builder.run.status is Status.RUNNING and not builder.stopping:
        _start_ready_steps(builder)
    if builder.run.status is Status.COMPENSATING:
        _compensate_ready_steps(builder)


def _start_ready_steps(builder: DecisionBuilder) -> None:
    for name, predecessors in builder.saga.predecessors.items():
        if builder.step(name).action.status is not StepStatus.PENDING:
            continue
        if all(builder.step(earlier).action.status in PASSED_STATUSES for earlier in predecessors):
            builder.start_attempt(name, Direction.ACTION)
    if all(step.action.status in PASSED_STATUSES for step in builder.run.steps.values()):
        replies = {name: builder.step(name).action.reply for name in builder.saga.steps}
        builder.record(RunCompleted(builder.now, replies))


def _stop_run(builder: DecisionBuilder) -> None:
    for name in builder.saga.steps:
        if builder.step(name).action.status in (StepStatus.AWAITING_RETRY, StepStatus.BLOCKED):
            _give_up_step(builder, name)
    cause = builder.run.stopping_cause or builder.compensation_cause
    assert cause is not None  # `stopping` says so
    if any(step.action.status is StepStatus.IN_FLIGHT for step in builder.run.steps.values()):
        if builder.run.stopping_cause is None:
            builder.record(RunStopping(cause))
    elif builder.past_pivot:
        builder.record(StopSuperseded("The pivot had succeeded."))
        builder.compensation_cause = None
    else:
        builder.record(RunCompensating(cause))
        builder.compensation_cause = None


def _give_up_step(builder: DecisionBuilder, name: str) -> None:
    incident = builder.find_incident(name, Direction.ACTION)
    if incident is not None:
        builder.record(IncidentResolved(incident.number, None, ENGINE_NAME, "the run turns back"))
    failure = builder.step(name).action.failure
    timed_out = failure is not None and failure.code == "timeout"
    builder.record(StepGivenUp(name, Outcome.UNKNOWN if timed_out else Outcome.FAILED))


def _compensate_ready_steps(builder: DecisionBuilder) -> None:
    for name in _steps_to_compensate(builder):
        if builder.saga.steps[name].compensation_spec is None:
            text = f"Step {name} may have taken effect and declares no compensation."
            builder.open_incident(name, Direction.COMPENSATION, "not_compensatable", text)
        else:
            builder.start_attempt(name, Direction.COMPENSATION)
    if not any(_needs_compensation(builder, name) for name in builder.run.steps):
        builder.record(RunCompensated(builder.now))


def _steps_to_compensate(builder: DecisionBuilder) -> Iterator[str]:
    for name in reversed(builder.saga.predecessors):
        pending = builder.step(name).compensation.status is StepStatus.PENDING
        has_uncompensated_dependents = any(
            _needs_compensation(builder, later) for later in builder.saga.descendants[name]
        )
        if pending and _needs_compensation(builder, name) and not has_uncompensated_dependents:
            yield name


def _needs_compensation(builder: DecisionBuilder, name: str) -> bool:
    step = builder.step(name)
    return (
        step.may_have_effect
        and not step.compensation_done
        and not builder.saga.steps[name].read_only
    )
