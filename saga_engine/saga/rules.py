"""
What makes a saga sound. `check` is called once for every saga, when its module has been loaded.

Each rule is one function that yields a DefinitionError for each declaration that breaks it, with
its file and line and how to correct it. What can be seen of a single declaration (annotations, a
name used twice) is refused where it stands, in `definition` and `binding`.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from types import UnionType
from typing import Any

from saga_engine.errors import DefinitionError
from saga_engine.payload.annotations import without_none
from saga_engine.payload.payload import name_of
from saga_engine.saga.binding import Parameter
from saga_engine.saga.definition import UNKNOWN, Order, Saga, Step
from saga_engine.saga.retry import Retry
from saga_engine.vocabulary import Direction, StepKind

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")
STEP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z", re.ASCII)
COMMAND = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z", re.ASCII)
COMMAND_BYTES_MAX = 127  # a routing key takes 255 bytes; the rest is left to prefixes of the future
STEPS_MAX = 200  # a run's state is one row; 200 steps of 1 KB replies still fit a page of a log
TIMEOUT_MAX = timedelta(days=30)
ATTEMPTS_MAX = 1000


Problems = Iterator[DefinitionError]


def check(saga: Saga) -> None:
    """
    Hold a saga against every rule.

    Raises:
        DefinitionError: the first rule it breaks, in the order of `problems`.
    """
    for problem in problems(saga):
        raise problem


def problems(saga: Saga) -> Problems:
    """
    Every rule a saga breaks, in the order a reader of the module meets them.

    Three kinds of rules build on each other: single declarations, the order of the steps, and what
    a step may use because of its place. Those of a kind are asked when the kinds before it hold.
    """
    alone = list(_alone(saga))
    if alone:
        yield from alone
        return
    order = list(_in_order(saga))
    if order:
        yield from order
        return
    for step in saga.steps.values():
        yield from _can_be_undone(saga, step)
        yield from _bound(saga, step, Direction.ACTION)
        if step.undo is not None:
            yield from _bound(saga, step, Direction.COMPENSATION)


def _alone(saga: Saga) -> Problems:
    too_many = list(_itself(saga))
    yield from too_many
    if too_many and len(saga.steps) > STEPS_MAX:
        return  # its steps are not looked at: there may be millions
    for step in saga.steps.values():
        yield from _order(step.action, step)
        if step.undo is not None:
            yield from _order(step.undo, step)
            yield from _another_command(step.action, step.undo, step)
        yield from _list_of_predecessors(saga, step)


def _in_order(saga: Saga) -> Problems:
    unknown = [each for step in saga.steps.values() for each in _known_predecessors(saga, step)]
    yield from unknown
    if unknown:
        return
    cycle = list(_no_cycle(saga))
    yield from cycle
    if not cycle:
        yield from _one_pivot(saga)


def _itself(saga: Saga) -> Problems:
    def refuse(problem: str, mend: str) -> DefinitionError:
        return DefinitionError(f"Saga {saga.name!r} {problem}.", where=saga.where, mend=mend)

    if not _matches(NAME, saga.name):
        yield refuse("has a name that cannot travel", "Use a to z, 0 to 9, - and _, at most 64.")
    if type(saga.version) is not int or not 1 <= saga.version < 2**31:
        yield refuse("has no version number", "Count versions from 1.")
    if saga.deadline is not None and not _within(saga.deadline, TIMEOUT_MAX * 12):
        yield refuse(
            f"has deadline={saga.deadline!r}", "Give a timedelta from 1 ms to 360 days, or None."
        )
    if not 1 <= len(saga.steps) <= STEPS_MAX:
        yield refuse(f"has {len(saga.steps)} steps", f"Declare 1 to {STEPS_MAX} with @saga.step.")


def _order(order: Order, step: Step) -> Problems:
    def refuse(problem: str, mend: str) -> DefinitionError:
        return DefinitionError(f"Step {step.name!r} {problem}.", where=order.where, mend=mend)

    if not STEP_NAME.match(step.name):
        yield refuse("has a name that cannot travel", "Use ASCII letters, at most 64.")
    if not _matches(COMMAND, order.command) or len(order.command) > COMMAND_BYTES_MAX:
        yield refuse(
            f"sends {str(order.command)[:80]!r}, which is no command name",
            "Use words of letters, digits, - and _ with dots between them: inventory.reserve.",
        )
    if not _within(order.timeout, TIMEOUT_MAX):
        yield refuse(
            f"waits without a usable timeout (timeout={order.timeout!r})",
            "Give a timedelta from 1 ms to 30 days: timeout=timedelta(seconds=30).",
        )
    problem = _retry_problem(order.retry)
    if problem:
        yield refuse(f"cannot be retried like that: {problem}", "Correct its retry=Retry(...).")


def _another_command(action: Order, undo: Order, step: Step) -> Problems:
    """A participant could not tell the two apart: both are the same message to it."""
    if action.command == undo.command:
        yield DefinitionError(
            f"The compensation of {step.name!r} sends {undo.command!r}, the step's own command.",
            where=undo.where,
            mend="Give the compensation a command of its own, for example"
            f" command={f'{undo.command}.undo'!r}.",
        )


def _matches(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and pattern.match(name) is not None


def _within(span: object, most: timedelta) -> bool:
    return isinstance(span, timedelta) and timedelta(milliseconds=1) <= span <= most


def _retry_problem(retry: object) -> str | None:
    if not isinstance(retry, Retry):
        return f"{retry!r} is no Retry"
    if not _are(timedelta, retry.initial, retry.maximum):
        return "initial and maximum must be timedeltas"
    if not _are(int | float, retry.attempts, retry.factor, retry.jitter):
        return "attempts, factor and jitter must be numbers"
    bounds = {
        f"attempts must be a whole number from 1 to {ATTEMPTS_MAX}": (
            type(retry.attempts) is int and 1 <= retry.attempts <= ATTEMPTS_MAX
        ),
        "0 <= initial <= maximum <= 30 days must hold": (
            timedelta() <= retry.initial <= retry.maximum <= TIMEOUT_MAX
        ),
        "factor must be 1 to 10": 1 <= retry.factor <= 10,
        "jitter must be 0 to 1": 0 <= retry.jitter <= 1,
    }
    return next((bound for bound, holds in bounds.items() if not holds), None)


def _are(kind: type | UnionType, *values: object) -> bool:
    return all(isinstance(value, kind) for value in values)


def _list_of_predecessors(saga: Saga, step: Step) -> Problems:
    after: object = step.after
    if after is None:
        return
    if not isinstance(after, list | tuple) or not _are(Step | str, *after):
        yield DefinitionError(
            f"The after= of step {step.name!r} is no list of steps.",
            where=step.where,
            mend="Give the steps themselves, or their names: after=[reserve] or after=['reserve'].",
        )
        return
    for each in after:
        if isinstance(each, Step) and saga.steps.get(each.name) is not each:
            yield DefinitionError(
                f"Step {step.name!r} comes after {each.name!r} of another saga, at {each.where}.",
                where=step.where,
                mend=f"Name a step of {saga.name!r}.",
            )


def _known_predecessors(saga: Saga, step: Step) -> Problems:
    for name in saga.after[step.name]:
        if name not in saga.steps:
            yield DefinitionError(
                f"Step {step.name!r} comes after {name!r}, which is no step of {saga.name!r}.",
                where=step.where,
                mend=f"Its steps are {', '.join(saga.steps)}.",
            )


def _no_cycle(saga: Saga) -> Problems:
    try:
        TopologicalSorter(saga.after).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        yield DefinitionError(
            f"The steps of {saga.name!r} wait for each other: {circle}.",
            where=saga.steps[error.args[1][0]].where,
            mend="Take one of them out of the other's after=[...].",
        )


def _one_pivot(saga: Saga) -> Problems:
    pivots = [step for step in saga.steps.values() if step.pivot]
    if len(pivots) > 1:
        for other in pivots[1:]:
            yield DefinitionError(
                f"Saga {saga.name!r} has two pivots: {pivots[0].name!r} and {other.name!r}.",
                where=other.where,
                mend="There is one point of no return; drop pivot=True from the other.",
            )
        return
    for pivot in pivots:
        ordered = saga.ancestors[pivot.name] | set(saga.descendants[pivot.name]) | {pivot.name}
        for step in saga.steps.values():
            if step.name not in ordered:
                yield DefinitionError(
                    f"Step {step.name!r} runs beside the pivot {pivot.name!r}.",
                    where=step.where,
                    mend="Put it before or after the pivot with after=[...].",
                )


def _can_be_undone(saga: Saga, step: Step) -> Problems:
    kind = saga.kind(step.name)
    if step.undo is not None and step.read_only:
        yield DefinitionError(
            f"The compensation of {step.name!r} can never run: the step is read-only.",
            where=step.undo.where,
            mend="Drop the compensation, or read_only=True.",
        )
    elif step.undo is not None and kind is StepKind.RETRIABLE:
        assert saga.pivot is not None  # a step is retriable because of it
        yield DefinitionError(
            f"The compensation of {step.name!r} can never run: the step comes after the pivot"
            f" {saga.pivot.name!r}.",
            where=step.undo.where,
            mend=f"Put the step before {saga.pivot.name!r}, so that it can be undone, or drop the"
            " compensation: after the pivot a step is retried until it succeeds.",
        )
    if step.undo is None and not step.read_only and kind is StepKind.COMPENSATABLE:
        yield DefinitionError(
            f"Step {step.name!r} cannot be undone.",
            where=step.where,
            mend=f"Declare @{step.name}.compensation(command=...), or say read_only=True,"
            " or put it after a pivot.",
        )


def _bound(saga: Saga, step: Step, direction: Direction) -> Problems:
    order = step.order(direction)
    assert order is not None  # the caller asks only for what is declared
    for parameter in order.mapping.parameters:
        if parameter.name in saga.steps:
            broken = _reply_bound(saga, step, direction, parameter)
            if broken is not None:
                text = f"Parameter {parameter.name!r} {broken[0]}."
                yield DefinitionError(text, where=order.where, mend=broken[1])
        elif saga.input is not UNKNOWN and parameter.kind != without_none(saga.input.kind)[0]:
            yield DefinitionError(
                f"Parameter {parameter.name!r} is neither a step nor the input.",
                where=order.where,
                mend=f"Name it after an earlier step, or annotate it with"
                f" {name_of(saga.input.kind)} for the input.",
            )


def _reply_bound(
    saga: Saga, step: Step, direction: Direction, parameter: Parameter
) -> tuple[str, str] | None:
    """What keeps a parameter from taking the reply of the step it is named like, and the fix."""
    own = parameter.name == step.name
    if own and direction is Direction.ACTION:
        return "is the step itself", "A step cannot need its own reply."
    if not own and parameter.name not in saga.ancestors[step.name]:
        return _not_before(saga, step, direction, parameter.name)
    given = saga.steps[parameter.name].action.reply
    return None if given is UNKNOWN else _typed(parameter, given.kind, own=own)


def _not_before(saga: Saga, step: Step, direction: Direction, other: str) -> tuple[str, str]:
    problem = f"is the reply of a step that does not come before {step.name!r}"
    if other not in saga.descendants[step.name]:
        return problem, f"Add it to after=[...] of {step.name!r}."
    if direction is Direction.COMPENSATION:
        return problem, (
            f"A step that comes later is undone before {step.name!r} is, and may never have"
            " begun. Take what the compensation needs from the input or from an earlier reply."
        )
    return problem, (
        f"{other!r} waits for {step.name!r}. Declare {other!r} first, or take what"
        f" {step.name!r} needs from the input or from an earlier reply."
    )


def _typed(parameter: Parameter, reply: Any, *, own: bool) -> tuple[str, str] | None:
    kind, may_be_none = without_none(reply)
    if parameter.kind != kind:
        return (
            f"is annotated {name_of(parameter.kind)}, but that step replies {name_of(reply)}",
            "Use the type of its reply=.",
        )
    if own and not parameter.optional:
        return (
            "may have no value: the step can time out and still have to be undone",
            f"Annotate it {name_of(kind)} | None and undo by what the input says.",
        )
    if may_be_none and not parameter.optional:
        return "may be None: so says that step's reply=", f"Annotate it {name_of(reply)}."
    return None
