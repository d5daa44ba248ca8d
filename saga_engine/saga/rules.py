"""
What makes a saga valid. `check` is called once for each saga, when its module is loaded.

Each rule is one function that yields a DefinitionError for each declaration that breaks it, with
its file and line and the fix. What is wrong with a single declaration (an annotation, a name used
twice) is refused when it is made, in `definition` and `payload.mapping`.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from types import UnionType
from typing import Any

from saga_engine.errors import DefinitionError
from saga_engine.payload.annotations import split_optional
from saga_engine.payload.mapping import Parameter
from saga_engine.payload.payload import type_name
from saga_engine.saga.definition import UNKNOWN_TYPE, CommandSpec, Saga, Step
from saga_engine.saga.retry import Retry
from saga_engine.vocabulary import Direction, StepKind

SAGA_NAME_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")
STEP_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z", re.ASCII)
COMMAND_PATTERN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z", re.ASCII)
MAX_COMMAND_BYTES = 127  # a routing key has at most 255 bytes; the rest is for future prefixes
MAX_STEPS = 200  # a run's state is one row; with replies of 1 KB it has 200 KB
MAX_TIMEOUT = timedelta(days=30)
MAX_ATTEMPTS = 1000


Problems = Iterator[DefinitionError]


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
    Every rule that a saga breaks, in the order of its module.

    Three kinds of rules depend on each other: single declarations, the order of the steps, and what
    a step may use at its position. The rules of a kind are checked if those before it hold.
    """
    declaration_problems = list(_check_declarations(saga))
    if declaration_problems:
        yield from declaration_problems
        return
    ordering_problems = list(_check_ordering(saga))
    if ordering_problems:
        yield from ordering_problems
        return
    for step in saga.steps.values():
        yield from _check_compensation(saga, step)
        yield from _check_parameters(saga, step, Direction.ACTION)
        if step.compensation_spec is not None:
            yield from _check_parameters(saga, step, Direction.COMPENSATION)


def _check_declarations(saga: Saga) -> Problems:
    saga_problems = list(_check_saga(saga))
    yield from saga_problems
    if saga_problems and len(saga.steps) > MAX_STEPS:
        return  # its steps are not checked: there may be millions
    for step in saga.steps.values():
        yield from _check_command(step.action_spec, step)
        if step.compensation_spec is not None:
            yield from _check_command(step.compensation_spec, step)
            yield from _check_distinct_commands(step.action_spec, step.compensation_spec, step)
        yield from _check_predecessor_list(saga, step)


def _check_ordering(saga: Saga) -> Problems:
    unknown = [
        each for step in saga.steps.values() for each in _check_known_predecessors(saga, step)
    ]
    yield from unknown
    if unknown:
        return
    cycle = list(_check_no_cycle(saga))
    yield from cycle
    if not cycle:
        yield from _check_one_pivot(saga)


def _check_saga(saga: Saga) -> Problems:
    def error(problem: str, fix: str) -> DefinitionError:
        return DefinitionError(
            f"Saga {saga.name!r} {problem}.", location=saga.source_location, fix=fix
        )

    if not _matches(SAGA_NAME_PATTERN, saga.name):
        yield error("has an invalid name", "Use a to z, 0 to 9, - and _, at most 64.")
    if type(saga.version) is not int or not 1 <= saga.version < 2**31:
        yield error("has no version number", "Count versions from 1.")
    if saga.deadline is not None and not _within(saga.deadline, MAX_TIMEOUT * 12):
        yield error(
            f"has deadline={saga.deadline!r}", "Give a timedelta from 1 ms to 360 days, or None."
        )
    if not 1 <= len(saga.steps) <= MAX_STEPS:
        yield error(f"has {len(saga.steps)} steps", f"Declare 1 to {MAX_STEPS} with @saga.step.")


def _check_command(spec: CommandSpec, step: Step) -> Problems:
    def error(problem: str, fix: str) -> DefinitionError:
        return DefinitionError(
            f"Step {step.name!r} {problem}.", location=spec.source_location, fix=fix
        )

    if not STEP_NAME_PATTERN.match(step.name):
        yield error("has an invalid name", "Use ASCII letters, at most 64.")
    if not _matches(COMMAND_PATTERN, spec.command) or len(spec.command) > MAX_COMMAND_BYTES:
        yield error(
            f"sends {str(spec.command)[:80]!r}, which is not a command name",
            "Use words of letters, digits, - and _ with dots between them: inventory.reserve.",
        )
    if not _within(spec.timeout, MAX_TIMEOUT):
        yield error(
            f"waits without a usable timeout (timeout={spec.timeout!r})",
            "Give a timedelta from 1 ms to 30 days: timeout=timedelta(seconds=30).",
        )
    problem = _retry_problem(spec.retry)
    if problem:
        yield error(f"cannot be retried like that: {problem}", "Correct its retry=Retry(...).")


def _check_distinct_commands(
    action_spec: CommandSpec, compensation_spec: CommandSpec, step: Step
) -> Problems:
    """A participant could not distinguish the two: both are the same message."""
    if action_spec.command == compensation_spec.command:
        yield DefinitionError(
            f"The compensation of {step.name!r} sends {compensation_spec.command!r}, the step's"
            " own command.",
            location=compensation_spec.source_location,
            fix="Give the compensation a command of its own, for example"
            f" command={f'{compensation_spec.command}.undo'!r}.",
        )


def _matches(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and pattern.match(name) is not None


def _within(duration: object, maximum: timedelta) -> bool:
    return isinstance(duration, timedelta) and timedelta(milliseconds=1) <= duration <= maximum


def _retry_problem(retry: object) -> str | None:
    if not isinstance(retry, Retry):
        return f"{retry!r} is not a Retry"
    if not _all_instances(timedelta, retry.initial, retry.maximum):
        return "initial and maximum must be timedeltas"
    if not _all_instances(int | float, retry.attempts, retry.factor, retry.jitter):
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


def _all_instances(expected_type: type | UnionType, *values: object) -> bool:
    return all(isinstance(value, expected_type) for value in values)


def _check_predecessor_list(saga: Saga, step: Step) -> Problems:
    after: object = step.after
    if after is None:
        return
    if not isinstance(after, list | tuple) or not _all_instances(Step | str, *after):
        yield DefinitionError(
            f"The after= of step {step.name!r} is not a list of steps.",
            location=step.source_location,
            fix="Give the steps themselves, or their names: after=[reserve] or after=['reserve'].",
        )
        return
    for each in after:
        if isinstance(each, Step) and saga.steps.get(each.name) is not each:
            yield DefinitionError(
                f"Step {step.name!r} comes after {each.name!r} of another saga, at"
                f" {each.source_location}.",
                location=step.source_location,
                fix=f"Name a step of {saga.name!r}.",
            )


def _check_known_predecessors(saga: Saga, step: Step) -> Problems:
    for name in saga.predecessors[step.name]:
        if name not in saga.steps:
            yield DefinitionError(
                f"Step {step.name!r} comes after {name!r}, which is not a step of {saga.name!r}.",
                location=step.source_location,
                fix=f"Its steps are {', '.join(saga.steps)}.",
            )


def _check_no_cycle(saga: Saga) -> Problems:
    try:
        TopologicalSorter(saga.predecessors).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        yield DefinitionError(
            f"The steps of {saga.name!r} wait for each other: {circle}.",
            location=saga.steps[error.args[1][0]].source_location,
            fix="Take one of them out of the other's after=[...].",
        )


def _check_one_pivot(saga: Saga) -> Problems:
    pivots = [step for step in saga.steps.values() if step.pivot]
    for other in pivots[1:]:
        yield DefinitionError(
            f"Saga {saga.name!r} has two pivots: {pivots[0].name!r} and {other.name!r}.",
            location=other.source_location,
            fix="There is one point of no return; drop pivot=True from the other.",
        )
    if len(pivots) != 1:
        return
    pivot = pivots[0].name
    ordered_steps = {pivot, *saga.ancestors[pivot], *saga.descendants[pivot]}
    for step in saga.steps.values():
        if step.name not in ordered_steps:
            yield DefinitionError(
                f"Step {step.name!r} runs beside the pivot {pivot!r}.",
                location=step.source_location,
                fix="Put it before or after the pivot with after=[...].",
            )


def _check_compensation(saga: Saga, step: Step) -> Problems:
    kind = saga.step_kind(step.name)
    if step.compensation_spec is not None and step.read_only:
        yield DefinitionError(
            f"The compensation of {step.name!r} can never run: the step is read-only.",
            location=step.compensation_spec.source_location,
            fix="Drop the compensation, or read_only=True.",
        )
    elif step.compensation_spec is not None and kind is StepKind.RETRIABLE:
        assert saga.pivot is not None  # a step is retriable because of it
        yield DefinitionError(
            f"The compensation of {step.name!r} can never run: the step comes after the pivot"
            f" {saga.pivot.name!r}.",
            location=step.compensation_spec.source_location,
            fix=f"Put the step before {saga.pivot.name!r}, so that it can be undone, or drop the"
            " compensation: after the pivot a step is only retried.",
        )
    if step.compensation_spec is None and not step.read_only and kind is StepKind.COMPENSATABLE:
        yield DefinitionError(
            f"Step {step.name!r} cannot be undone.",
            location=step.source_location,
            fix=f"Declare @{step.name}.compensation(command=...) or read_only=True, or put the step"
            " after a pivot.",
        )


def _check_parameters(saga: Saga, step: Step, direction: Direction) -> Problems:
    spec = step.command_spec(direction)
    assert spec is not None  # the caller asks only for what is declared
    for parameter in spec.mapping.parameters:
        if parameter.name in saga.steps:
            problem_and_fix = _reply_parameter_problem(saga, step, direction, parameter)
            if problem_and_fix is not None:
                text = f"Parameter {parameter.name!r} {problem_and_fix[0]}."
                yield DefinitionError(text, location=spec.source_location, fix=problem_and_fix[1])
        elif (
            saga.input_type is not UNKNOWN_TYPE
            and parameter.python_type != split_optional(saga.input_type.python_type)[0]
        ):
            yield DefinitionError(
                f"Parameter {parameter.name!r} is neither a step nor the input.",
                location=spec.source_location,
                fix=f"Name it after an earlier step, or annotate it with"
                f" {type_name(saga.input_type.python_type)} for the input.",
            )


def _reply_parameter_problem(
    saga: Saga, step: Step, direction: Direction, parameter: Parameter
) -> tuple[str, str] | None:
    """Why a parameter cannot have the reply of the step of its name, and the fix."""
    is_own_reply = parameter.name == step.name
    if is_own_reply and direction is Direction.ACTION:
        return "is the step itself", "A step cannot need its own reply."
    if not is_own_reply and parameter.name not in saga.ancestors[step.name]:
        return _not_predecessor_problem(saga, step, direction, parameter.name)
    reply_type = saga.steps[parameter.name].action_spec.reply_type
    if reply_type is UNKNOWN_TYPE:
        return None
    return _reply_type_problem(parameter, reply_type.python_type, is_own_reply=is_own_reply)


def _not_predecessor_problem(
    saga: Saga, step: Step, direction: Direction, other: str
) -> tuple[str, str]:
    problem = f"is the reply of a step that does not come before {step.name!r}"
    if other not in saga.descendants[step.name]:
        return problem, f"Add it to after=[...] of {step.name!r}."
    if direction is Direction.COMPENSATION:
        return problem, (
            f"A later step is compensated before {step.name!r}, and may never have started. Take"
            " what the compensation needs from the input or from an earlier reply."
        )
    return problem, (
        f"{other!r} waits for {step.name!r}. Declare {other!r} first, or take what"
        f" {step.name!r} needs from the input or from an earlier reply."
    )


def _reply_type_problem(
    parameter: Parameter, reply_type: Any, *, is_own_reply: bool
) -> tuple[str, str] | None:
    python_type, may_be_none = split_optional(reply_type)
    if parameter.python_type != python_type:
        return (
            (
                f"is annotated {type_name(parameter.python_type)}, but that step replies"
                f" {type_name(reply_type)}"
            ),
            "Use the type of its reply=.",
        )
    if is_own_reply and not parameter.optional:
        return (
            "may have no value: the step can time out and still have to be undone",
            f"Annotate it {type_name(python_type)} | None and undo by what the input says.",
        )
    if may_be_none and not parameter.optional:
        return "may be None: so says that step's reply=", f"Annotate it {type_name(reply_type)}."
    return None
