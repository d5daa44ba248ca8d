"""
What makes a saga valid. `check` is called once for each saga, when its module is loaded.

Each rule yields a DefinitionError for each declaration that breaks it, with its file and line and
the fix. What is wrong with a single declaration (an annotation, a name used twice) is refused when
it is made, in `definition` and `payload.mapping`.

This is what the decider relies on:

- The steps form a graph without a cycle.
- There is at most one pivot. Every other step comes before or after it, none runs beside it.
- A step before the pivot is read-only or has a compensation; the pivot may have one; a step after
  it has none.
- A mapping function reads the input, or the reply of a step that comes before. A compensation may
  also read the reply of its own step, which may be missing.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter

from saga_engine.errors import DefinitionError
from saga_engine.payload.annotations import split_optional
from saga_engine.payload.mapping import Parameter
from saga_engine.payload.payload import type_name
from saga_engine.saga.definition import INVALID_TYPE, CommandSpec, Saga, Step
from saga_engine.saga.retry import Retry
from saga_engine.vocabulary import StepKind

SAGA_NAME_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")
STEP_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z", re.ASCII)
COMMAND_PATTERN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z", re.ASCII)
MAX_COMMAND_BYTES = 127  # a routing key has at most 255 bytes; the rest is for future prefixes
MAX_STEPS = 200  # a run's state is one row; with replies of 1 KB it has 200 KB
MAX_TIMEOUT = timedelta(days=30)
MAX_ATTEMPTS = 1000

Problems = Iterator[DefinitionError]


def _error(declaration: Saga | Step | CommandSpec, text: str, fix: str) -> DefinitionError:
    return DefinitionError(text, location=declaration.source_location, fix=fix)


def check(saga: Saga) -> None:
    """
    Check a saga against every rule.

    Raises:
        DefinitionError: the first rule it breaks, in the order of `problems`.
    """
    for problem in problems(saga):
        raise problem


def problems(saga: Saga) -> Problems:
    """
    Every rule that a saga breaks.

    They depend on each other: single declarations, then the order of the steps, then what a step
    may use at its position. Each rule here is checked if those before it hold.
    """
    order = (_known_predecessors, _no_cycle, _one_pivot)
    for rule in (_check_declarations, *order, _check_positions):
        found = list(rule(saga))
        yield from found
        if found:
            return


# single declarations


def _check_declarations(saga: Saga) -> Problems:
    yield from _check_saga(saga)
    if len(saga.steps) > MAX_STEPS:
        return  # its steps are not checked: there may be millions
    for step in saga.steps.values():
        if not STEP_NAME_PATTERN.match(step.name):
            fix = "Use ASCII letters, digits and _, at most 64."
            yield _error(step, f"Step {step.name!r} has an invalid name.", fix)
        for spec in step.command_specs:
            yield from _check_command(step, spec)
        yield from _distinct_commands(step)
        yield from _predecessor_list(saga, step)


def _check_saga(saga: Saga) -> Problems:
    name = f"Saga {saga.name!r}"
    if not _matches(SAGA_NAME_PATTERN, saga.name):
        fix = "Use a to z, 0 to 9, - and _, at most 64."
        yield _error(saga, f"{name} has an invalid name.", fix)
    if type(saga.version) is not int or not 1 <= saga.version < 2**31:
        yield _error(saga, f"{name} has no version number.", "Count versions from 1.")
    if saga.deadline is not None and not _within(saga.deadline, MAX_TIMEOUT * 12):
        fix = "Give a timedelta from 1 ms to 360 days, or None."
        yield _error(saga, f"{name} has deadline={saga.deadline!r}.", fix)
    if not 1 <= len(saga.steps) <= MAX_STEPS:
        fix = f"Declare 1 to {MAX_STEPS} with @saga.step."
        yield _error(saga, f"{name} has {len(saga.steps)} steps.", fix)


def _check_command(step: Step, spec: CommandSpec) -> Problems:
    name = f"Step {step.name!r}"
    if not _matches(COMMAND_PATTERN, spec.command) or len(spec.command) > MAX_COMMAND_BYTES:
        text = f"{name} sends {str(spec.command)[:80]!r}, which is not a command name."
        fix = "Use words of letters, digits, - and _ with dots between them: inventory.reserve."
        yield _error(spec, text, fix)
    if not _within(spec.timeout, MAX_TIMEOUT):
        text = f"{name} waits without a usable timeout (timeout={spec.timeout!r})."
        fix = "Give a timedelta from 1 ms to 30 days: timeout=timedelta(seconds=30)."
        yield _error(spec, text, fix)
    problem = _retry_problem(spec.retry)
    if problem is not None:
        text = f"{name} cannot be retried like that: {problem}."
        yield _error(spec, text, "Correct its retry=Retry(...).")


def _retry_problem(retry: object) -> str | None:
    if not isinstance(retry, Retry):
        return f"{retry!r} is not a Retry"
    if not all(isinstance(each, timedelta) for each in (retry.initial, retry.maximum)):
        return "initial and maximum must be timedeltas"
    numbers = (retry.attempts, retry.factor, retry.jitter)
    if not all(isinstance(each, int | float) for each in numbers):
        return "attempts, factor and jitter must be numbers"
    bounds = {
        f"attempts must be a whole number from 1 to {MAX_ATTEMPTS}": (
            type(retry.attempts) is int and 1 <= retry.attempts <= MAX_ATTEMPTS
        ),
        "0 <= initial <= maximum <= 30 days must hold": (
            timedelta() <= retry.initial <= retry.maximum <= MAX_TIMEOUT
        ),
        "factor must be 1 to 10": 1 <= retry.factor <= 10,
        "jitter must be 0 to 1": 0 <= retry.jitter <= 1,
    }
    return next((bound for bound, holds in bounds.items() if not holds), None)


def _distinct_commands(step: Step) -> Problems:
    """A participant could not distinguish the two: both are the same message."""
    command, compensation = step.action_spec.command, step.compensation_spec
    if compensation is not None and compensation.command == command:
        text = f"The compensation of {step.name!r} sends {command!r}, the step's own command."
        example = f"{command}.undo"
        fix = f"Give the compensation a command of its own, for example command={example!r}."
        yield _error(compensation, text, fix)


def _predecessor_list(saga: Saga, step: Step) -> Problems:
    after: object = step.after
    if after is None:
        return
    if not isinstance(after, list | tuple) or not all(isinstance(x, Step | str) for x in after):
        text = f"The after= of step {step.name!r} is not a list of steps."
        fix = "Give the steps themselves, or their names: after=[reserve] or after=['reserve']."
        yield _error(step, text, fix)
        return
    for each in after:
        if isinstance(each, Step) and saga.steps.get(each.name) is not each:
            other = f"{each.name!r} of another saga, at {each.source_location}"
            text = f"Step {step.name!r} comes after {other}."
            yield _error(step, text, f"Name a step of {saga.name!r}.")


def _matches(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and pattern.match(name) is not None


def _within(duration: object, maximum: timedelta) -> bool:
    return isinstance(duration, timedelta) and timedelta(milliseconds=1) <= duration <= maximum


# the order of the steps


def _known_predecessors(saga: Saga) -> Problems:
    for step, predecessors in saga.predecessors.items():
        for name in predecessors:
            if name not in saga.steps:
                text = f"Step {step!r} comes after {name!r}, which is not a step of {saga.name!r}."
                yield _error(saga.steps[step], text, f"Its steps are {', '.join(saga.steps)}.")


def _no_cycle(saga: Saga) -> Problems:
    try:
        TopologicalSorter(saga.predecessors).prepare()
    except CycleError as error:
        cycle = error.args[1]
        text = f"The steps of {saga.name!r} wait for each other: {' -> '.join(reversed(cycle))}."
        yield _error(saga.steps[cycle[0]], text, "Take one of them out of the other's after=[...].")


def _one_pivot(saga: Saga) -> Problems:
    pivots = [step for step in saga.steps.values() if step.pivot]
    for other in pivots[1:]:
        text = f"Saga {saga.name!r} has two pivots: {pivots[0].name!r} and {other.name!r}."
        fix = "There is one point of no return; drop pivot=True from the other."
        yield _error(other, text, fix)
    if len(pivots) != 1:
        return
    pivot = pivots[0].name
    ordered_steps = {pivot, *saga.ancestors[pivot], *saga.descendants[pivot]}
    for step in saga.steps.values():
        if step.name not in ordered_steps:
            text = f"Step {step.name!r} runs beside the pivot {pivot!r}."
            yield _error(step, text, "Put it before or after the pivot with after=[...].")


# what a step may use at its position


def _check_positions(saga: Saga) -> Problems:
    for step in saga.steps.values():
        yield from _check_compensation(saga, step)
        for spec in step.command_specs:
            yield from _check_parameters(saga, step, spec)


def _check_compensation(saga: Saga, step: Step) -> Problems:
    kind, spec = saga.step_kind(step.name), step.compensation_spec
    never_runs = f"The compensation of {step.name!r} can never run"
    if spec is None:
        if not step.read_only and kind is StepKind.COMPENSATABLE:
            fix = (
                f"Declare @{step.name}.compensation(command=...) or read_only=True, or put the step"
                " after a pivot."
            )
            yield _error(step, f"Step {step.name!r} cannot be undone.", fix)
    elif step.read_only:
        fix = "Drop the compensation, or read_only=True."
        yield _error(spec, f"{never_runs}: the step is read-only.", fix)
    elif kind is StepKind.RETRIABLE:
        assert saga.pivot is not None  # a step is retriable because of it
        pivot = saga.pivot.name
        fix = (
            f"Put the step before {pivot!r}, so that it can be undone, or drop the compensation:"
            " after the pivot a step is only retried."
        )
        yield _error(spec, f"{never_runs}: the step comes after the pivot {pivot!r}.", fix)


def _check_parameters(saga: Saga, step: Step, spec: CommandSpec) -> Problems:
    """
    The name of a parameter says what it gets, and its annotation must be the type of that.

        a step that comes before  the reply of that step
        the step itself           only in its compensation: its reply, or None
        any other name            the input
    """
    for parameter in spec.mapping.parameters:
        name = f"Parameter {parameter.name!r}"
        if parameter.name not in saga.steps:
            yield from _check_input_type(saga, spec, parameter)
        elif parameter.name == step.name and spec is step.action_spec:
            yield _error(spec, f"{name} is the step itself.", "A step cannot need its own reply.")
        elif parameter.name not in (step.name, *saga.ancestors[step.name]):
            text = f"{name} is the reply of a step that does not come before {step.name!r}."
            yield _error(spec, text, _order_fix(saga, step, spec, parameter.name))
        else:
            yield from _check_reply_type(saga, step, spec, parameter)


def _check_input_type(saga: Saga, spec: CommandSpec, parameter: Parameter) -> Problems:
    input_type = saga.input_type.python_type
    if saga.input_type is INVALID_TYPE or parameter.python_type == split_optional(input_type)[0]:
        return
    text = f"Parameter {parameter.name!r} is neither a step nor the input."
    name = type_name(input_type)
    fix = f"Name it after an earlier step, or annotate it with {name} for the input."
    yield _error(spec, text, fix)


def _order_fix(saga: Saga, step: Step, spec: CommandSpec, other: str) -> str:
    name = step.name
    if other not in saga.descendants[name]:
        return f"Add it to after=[...] of {name!r}."
    if spec is step.action_spec:
        return (
            f"{other!r} waits for {name!r}. Declare {other!r} first, or take what {name!r} needs"
            " from the input or from an earlier reply."
        )
    return (
        f"A later step is compensated before {name!r}, and may never have started. Take what the"
        " compensation needs from the input or from an earlier reply."
    )


def _check_reply_type(saga: Saga, step: Step, spec: CommandSpec, parameter: Parameter) -> Problems:
    reply_type = saga.steps[parameter.name].action_spec.reply_type
    if reply_type is INVALID_TYPE:
        return
    name, reply_name = f"Parameter {parameter.name!r}", type_name(reply_type.python_type)
    python_type, may_be_none = split_optional(reply_type.python_type)
    if parameter.python_type != python_type:
        annotated = type_name(parameter.python_type)
        text = f"{name} is annotated {annotated}, but that step replies {reply_name}."
        yield _error(spec, text, "Use the type of its reply=.")
    elif parameter.name == step.name and not parameter.optional:
        text = f"{name} may have no value: the step can time out and still have to be undone."
        fix = f"Annotate it {type_name(python_type)} | None and undo by what the input says."
        yield _error(spec, text, fix)
    elif may_be_none and not parameter.optional:
        text = f"{name} may be None: so says that step's reply=."
        yield _error(spec, text, f"Annotate it {reply_name}.")
