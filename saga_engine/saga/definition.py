"""
What the author declares: a saga, its steps, and the compensation of each.

Declarations are made while the author's module is loaded, and checked by `rules.check` before the
first run. What is derived from them is cached, so nothing may be declared after that. Each
declaration keeps its file and line for error messages.

A declaration that cannot be used raises at once. `saga-engine check` reports every mistake: there
errors are collected instead, and the declaration gets a fallback.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any, TypeVar

from saga_engine.errors import DefinitionError, or_fallback, raise_or_collect
from saga_engine.payload.mapping import (
    INVALID_MAPPING,
    PayloadMapping,
    declared_type,
    require_arguments,
    source_location_of,
)
from saga_engine.payload.payload import PayloadType
from saga_engine.saga.retry import Retry
from saga_engine.vocabulary import Direction, StepKind

Function = Callable[..., Any]
MappingFunction = TypeVar("MappingFunction", bound=Function)

COMPENSATION_RETRY = Retry(attempts=10, maximum=timedelta(minutes=5))
"""A compensation is tried for up to 14 minutes: giving it up costs an operator's time."""

INVALID_TYPE = PayloadType(Any)
"""The type of an input or a reply whose declaration has an error that was collected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """One command of a step: what is sent in one direction, its timeout and its retry policy."""

    command: str
    mapping: PayloadMapping
    reply_type: PayloadType
    timeout: timedelta
    retry: Retry
    source_location: str


@dataclass(eq=False, repr=False, kw_only=True)
class Step:
    """
    One unit of a saga. Made by `Saga.step`; its `compensation` declares how it is undone.

    Args:
        name: the name of the decorated function.
        action_spec: the command it sends, with its timeout and retry policy.
        after: the steps it waits for; None: the one declared before it.
        pivot: it is the point of no return.
        read_only: it changes nothing.
    """

    name: str
    action_spec: CommandSpec
    after: Sequence["Step | str"] | None
    pivot: bool
    read_only: bool
    compensation_spec: CommandSpec | None = field(default=None, init=False)

    @property
    def source_location(self) -> str:
        """`file:line` of the declaration."""
        return self.action_spec.source_location

    def command_spec(self, direction: Direction) -> CommandSpec | None:
        """
        What is sent in that direction; None for a step without a compensation.

        Args:
            direction: the action, or the compensation.
        """
        return self.action_spec if direction is Direction.ACTION else self.compensation_spec

    @property
    def command_specs(self) -> tuple[CommandSpec, ...]:
        """What is sent: for the action, and for the compensation if it is declared."""
        undo = self.compensation_spec
        return (self.action_spec,) if undo is None else (self.action_spec, undo)

    @require_arguments
    def compensation(
        self,
        *,
        command: str,
        timeout: timedelta = timedelta(seconds=30),
        retry: Retry = COMPENSATION_RETRY,
    ) -> Callable[[MappingFunction], MappingFunction]:
        """
        Declare the command that semantically undoes this step.

        The decorated function maps the input, this step's own reply (None if it never came) and
        earlier replies to the command's payload. The command is sent whenever the step may have
        taken effect, so the participant must accept it for a step that never happened.

        Args:
            command: the routing key it is sent with; not the step's own.
            timeout: how long one attempt may take before its outcome counts as unknown.
            retry: how often and how soon the command is sent again; by default for up to 14
                minutes, then the run gets an incident.
        """

        def decorate(function: MappingFunction) -> MappingFunction:
            location = source_location_of(function)
            if self.compensation_spec is not None:
                text = (
                    f"Step {self.name!r} has two compensations, the other at"
                    f" {self.compensation_spec.source_location}."
                )
                raise_or_collect(DefinitionError(text, location=location, fix="Keep one."))
            self.compensation_spec = CommandSpec(
                command=command,
                mapping=or_fallback(lambda: PayloadMapping(function), INVALID_MAPPING),
                reply_type=PayloadType(Any),
                timeout=timeout,
                retry=retry,
                source_location=location,
            )
            return function

        return decorate


class Saga:
    """
    A saga: what it takes, its steps in order, and how long a run may take.

    Args:
        name: lower case, digits, `-` and `_`; at most 64 characters.
        version: 1 or more. A run keeps the version it started with; change it with the steps.
        input: the type of a run's input; anything pydantic understands.
        deadline: a run that has not passed its pivot after this time is compensated.
    """

    def __init__(
        self,
        name: str,
        *,
        version: int,
        input: Any,  # noqa: A002 - reads best in the author's declaration
        deadline: timedelta | None = None,
    ) -> None:
        frame = sys._getframe(1)  # noqa: SLF001 - the only way to the line a constructor is called on
        self.source_location = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.name = name
        self.version = version
        self.deadline = deadline
        self.steps: dict[str, Step] = {}
        description = f"The input of saga {name!r}"
        self.input_type = or_fallback(
            lambda: declared_type(input, description, self.source_location), INVALID_TYPE
        )

    @require_arguments
    def step(  # noqa: PLR0913 - one keyword for each property of a step
        self,
        *,
        command: str,
        reply: Any = Any,
        timeout: timedelta = timedelta(seconds=30),
        retry: Retry = Retry(),  # noqa: B008 - frozen
        after: Sequence[Step | str] | None = None,
        pivot: bool = False,
        read_only: bool = False,
    ) -> Callable[[Function], Step]:
        """
        Declare a step; the decorated function maps the input and earlier replies to its payload.

        Args:
            command: the routing key it is sent with, in the imperative: `inventory.reserve`.
            reply: the type of the reply's body; by default any JSON.
            timeout: how long one attempt may take before its outcome counts as unknown.
            retry: how often and how soon the command is sent again.
            after: the steps it waits for; by default the one declared before it.
            pivot: the point of no return. Steps after it are retried, and end in an incident
                instead of being compensated.
            read_only: it changes nothing, so there is nothing to compensate.
        """

        def decorate(function: Function) -> Step:
            location, name = source_location_of(function), function.__name__
            if name in self.steps:
                first = self.steps[name].source_location
                text = f"Step {name!r} is declared twice, first at {first}."
                fix = "Rename one of the functions."
                raise_or_collect(DefinitionError(text, location=location, fix=fix))
            what = f"The reply of step {name!r}"
            reply_type = or_fallback(lambda: declared_type(reply, what, location), INVALID_TYPE)
            action_spec = CommandSpec(
                command=command,
                mapping=or_fallback(lambda: PayloadMapping(function), INVALID_MAPPING),
                reply_type=reply_type,
                timeout=timeout,
                retry=retry,
                source_location=location,
            )
            self.steps[name] = Step(
                name=name, action_spec=action_spec, after=after, pivot=pivot, read_only=read_only
            )
            return self.steps[name]

        return decorate

    def __repr__(self) -> str:
        return f"Saga({self.name!r}, version={self.version}, steps={list(self.steps)})"

    @cached_property
    def predecessors(self) -> dict[str, tuple[str, ...]]:
        """For each step, in declaration order, the steps it waits for."""
        previous: tuple[str, ...] = ()
        edges = {}
        for name, step in self.steps.items():
            declared = previous if step.after is None else step.after
            edges[name] = tuple(s if isinstance(s, str) else s.name for s in declared)
            previous = (name,)
        return edges

    @cached_property
    def ancestors(self) -> dict[str, frozenset[str]]:
        """For each step, every step that is finished before it starts. Only for a valid saga."""
        ancestors: dict[str, frozenset[str]] = {}
        for name in TopologicalSorter(self.predecessors).static_order():
            direct = self.predecessors[name]
            ancestors[name] = frozenset(direct).union(*(ancestors[each] for each in direct))
        return ancestors

    @cached_property
    def descendants(self) -> dict[str, tuple[str, ...]]:
        """For each step, every step that depends on it. Only for a valid saga."""
        return {
            name: tuple(other for other in self.steps if name in self.ancestors[other])
            for name in self.steps
        }

    @cached_property
    def pivot(self) -> Step | None:
        """The point of no return, if there is one."""
        return next((step for step in self.steps.values() if step.pivot), None)

    @cached_property
    def fingerprint(self) -> str:
        """
        What a run is pinned to, as a hash: name, version, steps, commands, order, pivot, read-only.

        Mapping functions, types, timeouts and retries are not in it, so that a mistake in one of
        them can be fixed for the runs in flight.
        """
        steps = [
            {
                "step": name,
                "command": step.action_spec.command,
                "compensation": step.compensation_spec and step.compensation_spec.command,
                "after": sorted(self.predecessors[name]),
                "pivot": step.pivot,
                "read_only": step.read_only,
            }
            for name, step in self.steps.items()
        ]
        document = json.dumps([self.name, self.version, steps], separators=(",", ":"))
        return hashlib.sha256(document.encode()).hexdigest()[:16]

    def step_kind(self, name: str) -> StepKind:
        """
        Whether a step comes before the pivot, is the pivot, or comes after it.

        Args:
            name: one of its steps.
        """
        if self.pivot is None or name in self.ancestors[self.pivot.name]:
            return StepKind.COMPENSATABLE
        return StepKind.PIVOT if name == self.pivot.name else StepKind.RETRIABLE
