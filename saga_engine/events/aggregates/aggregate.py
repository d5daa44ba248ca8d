"""
What the author declares: an aggregate, how its events change its state, and what its commands do.

Three kinds of functions, which only map data. A fold applies one event to the state. A command
looks at the state and returns the events that happen, or raises `Rejected`. An upcaster turns the
data of an older version of an event into that of the next version. Parameters are recognised by
their annotation. The decorators return the function, so that a test calls it directly.

A declaration that cannot be used raises at once; what depends on other declarations is a matter of
`aggregate_rules`.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from uuid import UUID

from saga_engine.errors import DefinitionError, InvalidInput, raise_or_collect
from saga_engine.events.aggregates.fingerprint import snapshot_fingerprint
from saga_engine.events.aggregates.returned_events import returned_classes
from saga_engine.events.aggregates.source_hash import modules_of, source_hash
from saga_engine.events.event_store.arguments import require_instance
from saga_engine.events.event_store.event_types import (
    EventType,
    UpcastFunction,
    add_upcaster,
    declare_event_type,
    event_code_call,
    event_type_of,
    model_type,
)
from saga_engine.payload.guard import UserCodeCall
from saga_engine.payload.mapping import source_location_of, type_hints_of
from saga_engine.payload.payload import PayloadType, type_name

Function = Callable[..., Any]
FoldFunction = TypeVar("FoldFunction", bound=Function)
CommandFunction = TypeVar("CommandFunction", bound=Function)
UpcasterFunction = TypeVar("UpcasterFunction", bound=UpcastFunction)


@dataclass(frozen=True, slots=True)
class Fold:
    """
    How one event changes the state.

    Args:
        event_type: the event.
        function: the author's function.
        parameters: its parameters for the state and for the event.
        call: names it in errors.
    """

    event_type: EventType
    function: Function
    parameters: tuple[str, str]
    call: UserCodeCall


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """
    What one command does.

    Args:
        command_type: reads and writes the command.
        function: the author's function.
        parameters: its parameters for the state and for the command.
        event_classes: the classes of the events that it may return, by its annotation.
        call: names it in errors.
    """

    command_type: PayloadType
    function: Function
    parameters: tuple[str, str]
    event_classes: tuple[Any, ...]
    call: UserCodeCall


class Aggregate:
    """
    A kind of thing whose state is the fold of its events: an order, an account.

    Each one has a stream of its own, `<name>-<id>`.

    Args:
        name: lower case, digits and `_`, at most 64 characters, not `run`. No `-`, which ends the
            name in that of a stream.
        state: the class of its state, a pydantic model or a dataclass; every field has a default,
            because the state before the first event is `state()`.
    """

    def __init__(self, name: str, *, state: Any) -> None:
        frame = sys._getframe(1)  # noqa: SLF001 - the only way to the line a constructor is called on
        self.source_location = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.name = name
        self.state_class = state
        self.folds: dict[str, Fold] = {}
        self.commands: dict[type, CommandSpec] = {}
        self.source_hashes: dict[str, str | None] = {}
        self.has_invalid_declarations = False
        self.state_type = PayloadType(Any)
        self._declare(self._set_state_type)

    def event(self, name: str, *, version: int = 1) -> Callable[[FoldFunction], FoldFunction]:
        """
        Declare an event, and the fold that applies it.

        The decorated function takes the state and the event, and returns the next state. It must
        not fail: what may not happen is refused by the command, before the event exists.

        Args:
            name: how the event is stored, in the past tense: `order-placed`. Never change it.
            version: of the schema of its class, from 1. Raise it with each change that stored
                events do not fit, and declare an upcaster for the version before.
        """
        _require_name(name)

        def decorate(function: FoldFunction) -> FoldFunction:
            self._declare(lambda: self._add_fold(function, name, version))
            return function

        return decorate

    def upcast(self, name: str, *, version: int) -> Callable[[UpcasterFunction], UpcasterFunction]:
        """
        Declare how data of an older version of an event becomes data of the next version.

        The decorated function takes the stored JSON object as a dict and returns one. The last
        result of a chain must fit the class of the event.

        Args:
            name: the event, which is declared above.
            version: the version that is read.
        """

        def decorate(function: UpcasterFunction) -> UpcasterFunction:
            self._declare(lambda: self._add_upcaster(function, name, version))
            return function

        return decorate

    def command(self, function: CommandFunction) -> CommandFunction:
        """
        Declare what a command does.

        The decorated function takes the state and the command, whose class selects the function. It
        returns one event, a list or tuple of events, or None if nothing changes. It raises
        `Rejected` if the command is not allowed in that state.

        Args:
            function: what is decorated.
        """
        self._declare(lambda: self._add_command(function))
        return function

    @cached_property
    def fingerprint(self) -> str | None:
        """Which code makes the state, for its snapshots; None: none are used."""
        return snapshot_fingerprint(self.state_type, self.source_hashes)

    def stream(self, aggregate_id: str | int | UUID) -> str:
        """
        Name the stream of one aggregate.

        Args:
            aggregate_id: which one.

        Raises:
            InvalidInput: the id is neither a text, nor a number, nor a UUID.
        """
        given: object = aggregate_id
        if not isinstance(given, str | int | UUID) or isinstance(given, bool):
            raise InvalidInput(
                f"The id of aggregate {self.name!r} is a {type_name(type(given))}. Give a"
                " text, a number or a UUID."
            )
        return f"{self.name}-{aggregate_id}"

    def __repr__(self) -> str:
        return f"Aggregate({self.name!r}, events={list(self.folds)})"

    def _declare(self, declaration: Callable[[], None]) -> None:
        self.__dict__.pop("fingerprint", None)
        try:
            declaration()
        except DefinitionError as error:
            self.has_invalid_declarations = True
            raise_or_collect(error)

    def _set_state_type(self) -> None:
        description = f"The state of aggregate {self.name!r}"
        self.state_type = model_type(self.state_class, description, self.source_location)
        try:
            self.state_class()
        except Exception as error:
            raise DefinitionError(
                f"{description} does not begin: {type_name(self.state_class)}() raises"
                f" {type(error).__name__}.",
                location=self.source_location,
                fix="Give every field a default: the state before the first event.",
            ) from error
        self._add_sources(self.state_class)

    def _add_sources(self, *declared: Any) -> None:
        """Hash the modules that make the state, for its snapshots; see `fingerprint`."""
        for each in declared:
            for module in modules_of(each):
                if module not in self.source_hashes:
                    self.source_hashes[module] = source_hash(module)

    def _add_fold(self, function: Function, name: str, version: int) -> None:
        location = source_location_of(function, '@....event("order-placed")')
        parameters, types = self._state_and(function, "event", location)
        self._require_result(function, types, location)
        other = self.folds.get(name)
        if other is not None:
            raise DefinitionError(
                f"Event {name!r} is declared twice, the other at"
                f" {other.event_type.source_location}.",
                location=location,
                fix="Keep one; older versions of an event are read by upcasters.",
            )
        event_type = declare_event_type(types[parameters[1]], name, version, location)
        self._add_sources(function, event_type.model)
        call = event_code_call(function.__name__, location, name)
        self.folds[name] = Fold(event_type, function, parameters, call)

    def _add_upcaster(self, function: Function, name: str, version: int) -> None:
        location = source_location_of(function, '@....upcast("order-placed", version=1)')
        fold = self.folds.get(name)
        if fold is None:
            raise DefinitionError(
                f"Aggregate {self.name!r} has no event {str(name)[:80]!r} that an upcaster could"
                " read.",
                location=location,
                fix="Declare the event above its upcasters, with the same name.",
            )
        type_hints_of(function, location)
        if not _takes_one_argument(function):
            raise DefinitionError(
                f"{function.__name__} does not take the data of an event.",
                location=location,
                fix="Write def upcast(data: dict[str, Any]) -> dict[str, Any].",
            )
        add_upcaster(fold.event_type, version, function, location)
        self._add_sources(function)

    def _add_command(self, function: Function) -> None:
        location = source_location_of(function, "@....command")
        parameters, types = self._state_and(function, "command", location)
        command = types[parameters[1]]
        description = f"The command of {function.__name__}"
        command_type = model_type(command, description, location)
        other = self.commands.get(command)
        if other is not None:
            raise DefinitionError(
                f"Command {command.__name__} has two functions, the other at"
                f" {other.call.source_location}.",
                location=location,
                fix="Keep one, or give the commands classes of their own.",
            )
        if event_type_of(command) is not None:
            raise DefinitionError(
                f"{command.__name__} is an event, and {function.__name__} takes it as a command.",
                location=location,
                fix="Give the command a class of its own.",
            )
        self.commands[command] = CommandSpec(
            command_type=command_type,
            function=function,
            parameters=parameters,
            event_classes=returned_classes(function, types, location),
            call=event_code_call(function.__name__, location, command.__name__),
        )

    def _state_and(
        self, function: Function, kind: str, location: str
    ) -> tuple[tuple[str, str], Mapping[str, Any]]:
        """Read the names of the two parameters, the state's first, and all annotations."""
        types = type_hints_of(function, location)
        parameters = list(inspect.signature(function).parameters.values())
        names = [each.name for each in parameters]
        by_keyword = all(
            each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in parameters
        )
        states = [each for each in names if types.get(each) is self.state_class]
        others = [each for each in names if each in types and each not in states]
        if not by_keyword or len(names) != 2 or len(states) != 1 or len(others) != 1:
            state = type_name(self.state_class)
            raise DefinitionError(
                f"{function.__name__} does not take the state and one {kind}.",
                location=location,
                fix=f"Give it two parameters with annotations: one {state}, and the class of the"
                f" {kind}.",
            )
        return (states[0], others[0]), types

    def _require_result(self, function: Function, types: Mapping[str, Any], location: str) -> None:
        if types.get("return") is not self.state_class:
            state = type_name(self.state_class)
            raise DefinitionError(
                f"{function.__name__} does not return the state.",
                location=location,
                fix=f"Return the next {state}, and annotate the result with it.",
            )


def require_aggregate(given: object) -> None:
    """Raise InvalidInput if *given* is not an aggregate."""
    fix = 'Give the object that Aggregate("order", state=Order) has made.'
    require_instance(given, Aggregate, "The aggregate", fix)


def fold_of(aggregate: Aggregate, event_class: object) -> Fold | None:
    """Find the fold of a class; None if it is not an event of that aggregate."""
    event_type = event_type_of(event_class)
    fold = aggregate.folds.get(event_type.name) if event_type else None
    return fold if fold is not None and fold.event_type.model is event_class else None


def _require_name(name: object) -> None:
    """Refuse `@orders.event` without parentheses, which passes the function as the name."""
    if inspect.isfunction(name):
        raise DefinitionError(
            f"{name.__name__} is declared as an event without a name.",
            location=source_location_of(name),
            fix='Write @....event("order-placed").',
        )


def _takes_one_argument(function: Function) -> bool:
    parameters = list(inspect.signature(function).parameters.values())
    return len(parameters) == 1 and parameters[0].kind is not parameters[0].KEYWORD_ONLY
