"""
What follows a trigger: the run goes forward, stops, or compensates.

    running                     go forward: start each step whose predecessors have passed
    running, with a stop cause  stop: start nothing, wait for the steps in flight; then compensate,
                                or go forward if the pivot has succeeded meanwhile
    compensating                compensate each step whose dependents are compensated
    compensated, with a cause   compensate again: a step has succeeded late
    completed, abandoned        nothing

In a sequence, steps are compensated in reverse order; in a graph, independent branches side by
side.
"""

from saga_engine.decider import events
from saga_engine.decider.decision import DecisionBuilder
from saga_engine.decider.run import ACTION, PASSED, CompensationCause, StepStatus, is_past_pivot
from saga_engine.decider.step_in_direction import StepInDirection
from saga_engine.vocabulary import Direction, EngineFailureCode, IncidentCause, Outcome, Status


def advance(builder: DecisionBuilder) -> None:
    """Record what follows from where the run is now."""
    status, cause = builder.run.status, builder.stop_cause
    if status is Status.RUNNING and cause is None:
        _go_forward(builder)
    elif status is Status.RUNNING and cause is not None:
        _stop(builder, cause)
    elif status is Status.COMPENSATING:
        _compensate(builder)
    elif status is Status.COMPENSATED and cause is not None:
        _begin_compensation(builder, cause)


def _go_forward(builder: DecisionBuilder) -> None:
    steps, pending = builder.run.steps, StepStatus.PENDING
    passed = {name for name, state in steps.items() if state.action.status in PASSED}
    for name, predecessors in builder.saga.predecessors.items():
        if steps[name].action.status is pending and passed.issuperset(predecessors):
            StepInDirection(builder, name, ACTION).start_attempt()
    if len(passed) == len(steps):
        replies = {name: steps[name].action.reply for name in builder.saga.steps}
        builder.record(events.RunCompleted(builder.now, replies))


def _stop(builder: DecisionBuilder, cause: CompensationCause) -> None:
    """
    Wait for the actions in flight; then compensate, or go forward if the pivot succeeded.

    A run past its pivot does not begin to stop. If the pivot succeeds while the run stops, it was
    the only step in flight, because none runs beside it, and all steps before it have passed: going
    forward leaves nothing undone.
    """
    _give_up_waiting_actions(builder)
    steps = builder.run.steps.values()
    if any(state.action.status is StepStatus.IN_FLIGHT for state in steps):
        if builder.run.stop_cause is None:  # the stop is new: the next decision must know of it
            builder.record(events.RunStopping(cause))
    elif is_past_pivot(builder.saga, builder.run):
        builder.record(events.StopSuperseded("The pivot had succeeded."))
        _go_forward(builder)
    else:
        _begin_compensation(builder, cause)


def _give_up_waiting_actions(builder: DecisionBuilder) -> None:
    """End each action that awaits a retry or a person: unknown if its last failure is a timeout."""
    for name in builder.saga.steps:
        action = StepInDirection(builder, name, ACTION)
        if action.progress.status in (StepStatus.AWAITING_RETRY, StepStatus.BLOCKED):
            action.close_obsolete_incident("the run compensates")
            failure = action.progress.failure
            timed_out = failure is not None and failure.engine_code is EngineFailureCode.TIMEOUT
            outcome = Outcome.UNKNOWN if timed_out else Outcome.FAILED
            builder.record(events.StepGivenUp(name, outcome))


def _begin_compensation(builder: DecisionBuilder, cause: CompensationCause) -> None:
    builder.record(events.RunCompensating(cause))
    _compensate(builder)


def _compensate(builder: DecisionBuilder) -> None:
    names = reversed(builder.saga.steps)
    remaining = [name for name in names if _needs_compensation(builder, name)]
    for name in remaining:
        if _can_start_compensation(builder, name, remaining):
            _start_compensation(StepInDirection(builder, name, Direction.COMPENSATION))
    if not remaining:
        builder.record(events.RunCompensated(builder.now))


def _start_compensation(step: StepInDirection) -> None:
    if step.declared.compensation_spec is not None:
        step.start_attempt()
    else:  # a pivot: each step before it has a compensation, or is read-only (`saga.rules`)
        text = f"Step {step.name} may have taken effect and declares no compensation."
        step.open_incident(IncidentCause.NOT_COMPENSATABLE, text)


def _needs_compensation(builder: DecisionBuilder, name: str) -> bool:
    state, read_only = builder.run.steps[name], builder.saga.steps[name].read_only
    return state.may_have_effect and not state.compensation_done and not read_only


def _can_start_compensation(builder: DecisionBuilder, name: str, remaining: list[str]) -> bool:
    """Whether it has not started, and no step that depends on *name* is still to be compensated."""
    pending = builder.run.steps[name].compensation.status is StepStatus.PENDING
    return pending and not any(later in remaining for later in builder.saga.descendants[name])
