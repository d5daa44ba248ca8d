"""
What the author declares of a projection: its tables, and functions of events that change them.

Two kinds of functions. One that maps an event to changes is pure, and its changes are folded for
many events before they are written. One that is `async` gets the connection of the batch's
transaction and executes any SQL; it is called for each event, in order.
"""

import inspect
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, Union, get_args, get_origin

from sqlalchemy import Table

from saga_engine.errors import DefinitionError, raise_or_collect
from saga_engine.events.event_store.event_types import EventType, event_code_call
from saga_engine.events.handlers.event_handler import (
    EventHandler,
    check_signature,
    named_event,
    require_event,
)
from saga_engine.events.handlers.on_poison import OnPoison
from saga_engine.events.projections.change import Change
from saga_engine.events.projections.handler_source import check_calls
from saga_engine.payload.mapping import source_location_of
from saga_engine.payload.payload import type_name

Function = TypeVar("Function", bound=Callable[..., Any])


class Projection:
    """
    A read model: tables that are filled from events, exactly once and in order.

    Args:
        name: lower case, digits, `-` and `_`; at most 64 characters.
        version: 1 or more; change it with the tables or the functions, then rebuild.
        tables: what it writes, as SQLAlchemy Core tables, those that others refer to first. No
            other projection writes them.
        on_poison: whether an event that can never be applied stops the projection, or only its
            stream.
    """

    def __init__(
        self,
        name: str,
        *,
        version: int,
        tables: Sequence[Table],
        on_poison: OnPoison | str = OnPoison.STOP,
    ) -> None:
        frame = sys._getframe(1)  # noqa: SLF001 - the only way to the line a constructor is called on
        self.source_location = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.name = name
        self.version = version
        self.on_poison = on_poison
        self.handlers: dict[str, EventHandler] = {}
        self.has_invalid_declarations = False
        self.tables = self._tables(tables)

    def __repr__(self) -> str:
        return f"Projection({self.name!r}, version={self.version}, events={list(self.handlers)})"

    @property
    def event_types(self) -> list[EventType]:
        """The declared events that it reads, without those that it reads as JSON."""
        return [each.event_type for each in self.handlers.values() if each.event_type]

    def _tables(self, tables: object) -> tuple[Table, ...]:
        if isinstance(tables, Iterable) and not isinstance(tables, str):
            return tuple(tables)
        self.has_invalid_declarations = True
        problem = (
            f"Projection {str(self.name)[:80]!r} has a {type_name(type(tables))} as its tables."
        )
        fix = "Give a list: tables=[...]."
        raise_or_collect(DefinitionError(problem, location=self.source_location, fix=fix))
        return (tables,) if isinstance(tables, Table) else ()

    def on(self, event: type | str) -> Callable[[Function], Function]:
        """
        Declare what an event changes.

        The decorated function is called with the event and its `Recorded`. It returns a change, a
        list of changes, or None. An async function gets the connection as well, and returns None.
        Annotate the event with its class, the second parameter with `Recorded`, and the result:
        `Change`, `list[Change]` or `Change | None`, of an async function `None`.

        Args:
            event: the class of an event that an aggregate declares; or a type by its name, then
                the function gets the data as JSON.

        Raises:
            DefinitionError: the class is not an event, the function does not fit, or the event has
                a function already.
        """
        require_event(event)

        def decorate(function: Function) -> Function:
            try:
                self._add(event, function)
            except DefinitionError as error:
                self.has_invalid_declarations = True
                raise_or_collect(error)
            return function

        return decorate

    def _add(self, event: type | str, function: Callable[..., Any]) -> None:
        location = source_location_of(function, "@....on(Event)")
        name, event_type = named_event(event, location)
        is_sql = inspect.iscoroutinefunction(function)
        hints = check_signature(function, event, location, is_sql=is_sql)
        result = _check_result(function, hints, location, is_sql=is_sql)
        if other := self.handlers.get(name):
            raise DefinitionError(
                f"Projection {self.name!r} has two functions for {name!r}, the other at"
                f" {other.call.source_location}.",
                location=location,
                fix="Keep one; it can return several changes.",
            )
        if not is_sql:
            check_calls(function, self.tables)
        self.handlers[name] = EventHandler(
            event_name=name,
            event_type=event_type,
            function=function,
            call=event_code_call(function.__name__, location, name),
            is_sql=is_sql,
            result=None if _allows_none(result) else _annotation_text(result),
        )


def _check_result(
    function: Callable[..., Any], hints: Mapping[str, Any], location: str, *, is_sql: bool
) -> Any:
    result = hints.get("return", type(None) if is_sql else None)
    allowed = (type(None),) if is_sql else (type(None), Change)
    if result is not None and all(each in allowed for each in _result_types(result)):
        return result
    raise DefinitionError(
        f"{function.__name__} does not say that it returns {'None' if is_sql else 'a change'}.",
        location=location,
        fix="An async function changes the tables itself: annotate its result with None."
        if is_sql
        else "Annotate its result: Change, list[Change] or Change | None.",
    )


def _result_types(annotation: Any) -> list[Any]:
    """The classes in an annotation such as `Change | list[Change] | None`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType, list, tuple, Sequence):
        return [found for each in arguments if each is not ... for found in _result_types(each)]
    return [annotation]


def _allows_none(annotation: Any) -> bool:
    """Whether a function with this result may return None, as for an event that changes nothing."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return type(None) in (get_args(annotation) if is_union else (annotation,))


def _annotation_text(annotation: Any) -> str:
    """An annotation as the author wrote it: `Change`, `list[Change]`."""
    return inspect.formatannotation(annotation).replace(f"{Change.__module__}.", "")
