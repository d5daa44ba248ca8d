"""
What the author declares: a saga, its steps, and the compensation of each.

The objects here are filled while the author's module is loaded and checked by `rules.check` before
the first run; what is derived from them is kept, so nothing may be declared after that. Every
declaration remembers where it stands, so that an error can name the file and the line.

A declaration that cannot be used raises at once. Inside `collecting` it is noted instead and the
module is loaded to its end, so that `saga-engine check` reports every mistake of a module.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, wraps
from typing import Any, TypeVar, cast

from saga_engine.errors import DefinitionError
from saga_engine.payload.payload import Payload, PayloadError
from saga_engine.saga.binding import Mapping, place_of, refuse_bare
from saga_engine.saga.retry import Retry
from saga_engine.vocabulary import Direction, StepKind

Function = Callable[..., Any]
Declaring = TypeVar("Declaring", bound=Callable[..., Any])
Made = TypeVar("Made")

_collected: ContextVar[list[DefinitionError] | None] = ContextVar("collected", default=None)

COMPENSATION_RETRY = Retry(attempts=10, maximum=timedelta(minutes=5))
"""Undoing is tried for about 20 minutes: giving up costs a person's time."""


@contextmanager
def collecting() -> Iterator[list[DefinitionError]]:
    """
    Note declarations that cannot be used instead of raising; for `saga-engine check`.

    A step that is noted stands in its saga with a mapping that must not be called, so that the
    rules can be asked about the other steps. Such a saga must not run.
    """
    noted: list[DefinitionError] = []
    token = _collected.set(noted)
    try:
        yield noted
    finally:
        _collected.reset(token)


def _or_noted(make: Callable[[], Made], instead: Made) -> Made:
    """What *make* makes; *instead*, when it raises and the error is noted."""
    try:
        return make()
    except DefinitionError as error:
        noted = _collected.get()
        if noted is None:
            raise
        noted.append(error)
        return instead


def _with_arguments(method: Declaring) -> Declaring:
    """Refuse `@saga.step` without parentheses in words; it passes the function as an argument."""

    @wraps(method)
    def called(self: object, *args: object, **options: object) -> object:
        if args:
            refuse_bare(args[0], method.__name__)
        return method(self, **options)

    return cast("Declaring", called)


def _nothing() -> None:
    """Stand for a mapping function that cannot be used."""


UNUSABLE = Mapping(_nothing)
"""The mapping of a declaration that was noted; see `collecting`."""

UNKNOWN = Payload(Any)
"""The type of an input or a reply that was noted."""


def _payload(kind: Any, what: str, where: str) -> Payload:
    try:
        return Payload(kind)
    except PayloadError as error:
        raise DefinitionError(
            f"{what} does not work: {error}.", where=where, mend=error.mend
        ) from None


@dataclass(frozen=True, slots=True)
class Order:
    """One command of a step: what is sent in one direction, and how patiently."""

    command: str
    mapping: Mapping
    reply: Payload
    timeout: timedelta
    retry: Retry
    where: str


class Step:
    """
    One unit of a saga. Made by `Saga.step`; its `compensation` declares how it is undone.

    Args:
        name: the name of the decorated function.
        action: the command it sends, and how patiently.
        after: the steps it waits for; None for the one declared before it.
    """

    def __init__(self, name: str, action: Order, after: Sequence["Step | str"] | None) -> None:
        self.name = name
        self.action = action
        self.after = after
        self.undo: Order | None = None
        self.pivot = False
        self.read_only = False

    @property
    def where(self) -> str:
        """`file:line` of the declaration."""
        return self.action.where

    def order(self, direction: Direction) -> Order | None:
        """
        What is sent in that direction; None for a step that cannot be undone.

        Args:
            direction: the action, or the compensation.
        """
        return self.action if direction is Direction.ACTION else self.undo

    @_with_arguments
    def compensation(
        self,
        *,
        command: str,
        timeout: timedelta = timedelta(seconds=30),
        retry: Retry = COMPENSATION_RETRY,
    ) -> Callable[[Function], Function]:
        """
        Declare the command that semantically undoes this step.

        The decorated function maps the input, this step's own reply (None when it never came) and
        earlier replies to the command's payload. It is sent whenever the step may have taken
        effect, so the participant must accept it for a step that never happened.

        Args:
            command: the routing key it is sent with; another than the step's own.
            timeout: how long one attempt may take before its outcome counts as unknown.
            retry: how often and how soon the command is sent again. By default for about 20
                minutes; then the run gets an incident.
        """

        def declare(function: Function) -> Function:
            where = place_of(function)
            _or_noted(lambda: self._only_one(where), None)
            mapping = _or_noted(lambda: Mapping(function), UNUSABLE)
            self.undo = Order(command, mapping, Payload(Any), timeout, retry, where)
            return function

        return declare

    def _only_one(self, where: str) -> None:
        if self.undo is not None:
            raise DefinitionError(
                f"Step {self.name!r} has two compensations, the other at {self.undo.where}.",
                where=where,
                mend="Keep one.",
            )


class Saga:
    """
    A saga: what it takes, its steps in order, and how long a run may take.

    Args:
        name: lower case, digits, `-` and `_`; at most 64 characters.
        version: 1 or more. A run stays with the version it began with; change the steps, change it.
        input: the type of a run's input; anything pydantic understands.
        deadline: after this long a run that has not passed its pivot is rolled back.

    Declarations are checked by `rules.check`, which the loader calls for every saga of a module.
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
        self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.name = name
        self.version = version
        self.deadline = deadline
        self.steps: dict[str, Step] = {}
        what = f"The input of saga {name!r}"
        self.input = _or_noted(lambda: _payload(input, what, self.where), UNKNOWN)

    @_with_arguments
    def step(  # noqa: PLR0913 - one keyword for each thing an author may say of a step
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
            reply: the type of the reply's body; any JSON when not given.
            timeout: how long one attempt may take before its outcome counts as unknown.
            retry: how often and how soon the command is sent again.
            after: the steps it waits for; by default the one declared before it.
            pivot: the point of no return. Steps after it are retriable: they are retried, and end
                in an incident rather than a rollback.
            read_only: it changes nothing, so there is nothing to undo.
        """

        def declare(function: Function) -> Step:
            where, name = place_of(function), function.__name__
            _or_noted(lambda: self._only_one(name, where), None)
            what = f"The reply of step {name!r}"
            answer = _or_noted(lambda: _payload(reply, what, where), UNKNOWN)
            mapping = _or_noted(lambda: Mapping(function), UNUSABLE)
            action = Order(command, mapping, answer, timeout, retry, where)
            step = Step(name, action, after)
            step.pivot, step.read_only = pivot, read_only
            self.steps[name] = step
            return step

        return declare

    def _only_one(self, name: str, where: str) -> None:
        if name in self.steps:
            raise DefinitionError(
                f"Step {name!r} is declared twice, first at {self.steps[name].where}.",
                where=where,
                mend="Rename one of the functions.",
            )

    def __repr__(self) -> str:
        return f"Saga({self.name!r}, version={self.version}, steps={list(self.steps)})"

    @cached_property
    def after(self) -> dict[str, tuple[str, ...]]:
        """For each step, in declaration order, the steps it waits for."""
        before: tuple[str, ...] = ()
        edges = {}
        for name, step in self.steps.items():
            chosen = before if step.after is None else step.after
            edges[name] = tuple(s if isinstance(s, str) else s.name for s in chosen)
            before = (name,)
        return edges

    @cached_property
    def ancestors(self) -> dict[str, frozenset[str]]:
        """For each step, every step that is finished before it begins. Only for a sound saga."""
        found: dict[str, frozenset[str]] = {}

        def collect(name: str) -> frozenset[str]:
            if name not in found:
                direct = self.after[name]
                found[name] = frozenset(direct).union(*map(collect, direct))
            return found[name]

        for name in self.steps:
            collect(name)
        return found

    @cached_property
    def descendants(self) -> dict[str, tuple[str, ...]]:
        """For each step, every step that depended on it. Only for a sound saga."""
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
        What a run is pinned to besides name and version: the steps, their commands and their order.

        Mapping functions, types, timeouts and retries are not in it, so that a mistake in one of
        them can be mended for the runs in flight.
        """
        steps = [
            {
                "step": name,
                "command": step.action.command,
                "compensation": step.undo and step.undo.command,
                "after": sorted(self.after[name]),
                "pivot": step.pivot,
                "read_only": step.read_only,
            }
            for name, step in self.steps.items()
        ]
        document = json.dumps([self.name, self.version, steps], separators=(",", ":"))
        return hashlib.sha256(document.encode()).hexdigest()[:16]

    def kind(self, name: str) -> StepKind:
        """
        What a step's place relative to the pivot allows.

        Args:
            name: one of its steps.
        """
        if self.pivot is None or name in self.ancestors[self.pivot.name]:
            return StepKind.COMPENSATABLE
        return StepKind.PIVOT if name == self.pivot.name else StepKind.RETRIABLE
