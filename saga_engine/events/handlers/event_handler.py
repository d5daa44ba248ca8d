"""
A function of the author that takes an event: its signature, checked at its declaration.

Projections and consumers have such functions.
"""

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from saga_engine.errors import DefinitionError
from saga_engine.events.event_store.event_types import (
    EVENT_NAME_RULE,
    EventType,
    event_type_of,
    is_event_name,
)
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.payload.guard import CallTimeLimit, UserCodeCall
from saga_engine.payload.mapping import source_location_of
from saga_engine.payload.payload import type_name

_JSON_TYPES = (dict, list, str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHandler:
    """
    One function.

    Args:
        event_name: the type of the events it is called for.
        event_type: reads them; None: the function gets their data as JSON.
        function: the author's function.
        call: names it in errors and for the time limit.
        is_sql: whether it is an async function that executes SQL itself.
        result: how its result is annotated; None when that allows None.
    """

    event_name: str
    event_type: EventType | None
    function: Callable[..., Any]
    call: UserCodeCall
    is_sql: bool
    result: str | None

    def read(self, recorded: Recorded, time_limit: CallTimeLimit) -> Any:
        """
        Make what the function gets of an event.

        Raises:
            UnreadableEvent: its data does not fit, or has a number with too many digits.
        """
        if self.event_type is not None:
            return self.event_type.read(recorded, time_limit)
        recorded.require_exact_numbers()
        return recorded.data


def require_event(event: object) -> None:
    """Refuse `@....on` without parentheses, which passes the function as the event."""
    if inspect.isfunction(event):
        raise DefinitionError(
            f"{event.__name__} is declared without an event.",
            location=source_location_of(event),
            fix="Write @....on(Event).",
        )


def named_event(event: type | str, location: str) -> tuple[str, EventType | None]:
    """
    Give the name of an event, and what reads it; None for one that is given by its name.

    Raises:
        DefinitionError: it is not an event.
    """
    if isinstance(event, str):
        if not is_event_name(event):
            raise DefinitionError(
                f"{event[:80]!r} is not the name of an event.",
                location=location,
                fix=EVENT_NAME_RULE,
            )
        return event, None
    event_type = event_type_of(event)
    if event_type is None:
        raise DefinitionError(
            f"{type_name(event)} is not an event.",
            location=location,
            fix="Declare it with the event decorator of its aggregate, in a module that is imported"
            " before this one, or give the name of the event.",
        )
    return event_type.name, event_type


def content_model(function: Callable[..., Any], location: str) -> type | None:
    """
    Give the class that the first parameter of a function is annotated with; None: plain JSON.

    Raises:
        DefinitionError: an annotation cannot be read.
    """
    hints = _hints(function, location)
    annotated = [hints[each] for each in inspect.signature(function).parameters if each in hints]
    first = annotated[0] if annotated else None
    is_model = isinstance(first, type) and (is_dataclass(first) or hasattr(first, "model_fields"))
    return first if is_model else None


def check_signature(
    function: Callable[..., Any],
    event: type | str,
    location: str,
    *,
    is_sql: bool,
    record: type[Recorded] = Recorded,
) -> dict[str, Any]:
    """
    Check the parameters and annotations of a function.

    Args:
        function: of the author.
        event: that of its decorator.
        location: where it is declared.
        is_sql: whether it gets a connection as well.
        record: the class of what it gets as the second parameter.

    Returns:
        All annotations, that of its result as `return`.

    Raises:
        DefinitionError: it cannot be called with what it gets.
    """
    parameters = list(inspect.signature(function).parameters.values())
    expected = ("event", "recorded", "connection")[: 3 if is_sql else 2]
    if len(parameters) != len(expected) or any(
        each.kind not in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters
    ):
        kind = "async function" if is_sql else "function"
        raise DefinitionError(
            f"{function.__name__} does not take what it gets.",
            location=location,
            fix=f"Give this {kind} {len(expected)}: {', '.join(expected)}.",
        )
    hints = _hints(function, location)
    _check_content(function, event, hints.get(parameters[0].name, event), location)
    second = hints.get(parameters[1].name, record)
    if second not in (Recorded, record):
        raise DefinitionError(
            f"{function.__name__} takes {type_name(second)} as its second parameter.",
            location=location,
            fix=f"Annotate it with {record.__name__}, which has the stream, the position and the"
            " time.",
        )
    return hints


def _check_content(
    function: Callable[..., Any], event: type | str, annotation: Any, location: str
) -> None:
    """Check the annotation of the first parameter, which takes the event."""
    if not isinstance(event, str) and annotation is not event:
        raise DefinitionError(
            f"{function.__name__} takes {type_name(annotation)}, and gets {type_name(event)}.",
            location=location,
            fix="Annotate its first parameter with the event of the decorator.",
        )
    if isinstance(event, str) and not _takes_json(annotation):
        raise DefinitionError(
            f"{function.__name__} takes {type_name(annotation)}, and gets the JSON of {event!r}.",
            location=location,
            fix=f"Write @....on({type_name(annotation)}), or annotate the parameter with"
            " dict[str, Any].",
        )


def require_no_result(
    function: Callable[..., Any], hints: Mapping[str, Any], location: str
) -> None:
    """
    Check that an async function is annotated to return nothing.

    Raises:
        DefinitionError: it returns something, which nothing would read.
    """
    if hints.get("return", type(None)) is not type(None):
        raise DefinitionError(
            f"{function.__name__} does not say that it returns None.",
            location=location,
            fix="An async function changes the tables itself: annotate its result with None.",
        )


def _takes_json(annotation: Any) -> bool:
    """Whether data that is read from JSON can be what an annotation says."""
    if get_origin(annotation) in (Union, types.UnionType):
        return all(_takes_json(each) for each in get_args(annotation))
    python_type = get_origin(annotation) or annotation
    # Any is a class since Python 3.11.
    if python_type is Any or not isinstance(python_type, type) or is_typeddict(python_type):
        return True
    return any(issubclass(each, python_type) for each in _JSON_TYPES)


def _hints(function: Callable[..., Any], location: str) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (AttributeError, NameError, SyntaxError, TypeError) as error:
        raise DefinitionError(
            f"An annotation of {function.__name__} cannot be read: {error}.",
            location=location,
            fix="Write it as a type that the module defines or imports, not under TYPE_CHECKING.",
        ) from None
