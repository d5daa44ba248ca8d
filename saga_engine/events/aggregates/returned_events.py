"""
What a command's function may return: by its annotation, the classes of its events.

`Placed`, `Placed | None`, `list[Placed | Cancelled]`, `tuple[Placed, Discounted]` and None.
"""

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from saga_engine.errors import DefinitionError
from saga_engine.payload.payload import type_name

_SEQUENCES = (list, tuple, Sequence)


def returned_classes(
    function: Callable[..., Any], annotations: Mapping[str, Any], location: str
) -> tuple[Any, ...]:
    """
    Read the classes of the events that a function may return; none if it returns None.

    Raises:
        DefinitionError: its result has no annotation, or one that names no classes.
    """
    fix = "Annotate its result with its events: -> Placed, -> list[Placed | Cancelled] or -> None."
    if "return" not in annotations:
        text = f"{function.__name__} does not say what it returns."
        raise DefinitionError(text, location=location, fix=fix)
    classes = tuple(dict.fromkeys(_classes(annotations["return"])))
    for each in classes:
        if not isinstance(each, type) or each in (*_SEQUENCES, object, Any):
            text = f"{function.__name__} returns {type_name(each)}, which names no event."
            raise DefinitionError(text, location=location, fix=fix)
    return classes


def events_in(result: object) -> tuple[Any, ...]:
    """Give what a function has returned as a tuple: one event, several, or none."""
    if result is None:
        return ()
    return tuple(result) if isinstance(result, list | tuple) else (result,)


def _classes(annotation: Any) -> Iterator[Any]:
    """Go through unions and sequences; a sequence in a sequence is returned as it is."""
    for alternative in _alternatives(annotation):
        if get_origin(alternative) in _SEQUENCES and get_args(alternative):
            for element in get_args(alternative):
                if element is not Ellipsis:
                    yield from _alternatives(element)
        elif alternative is not type(None):
            yield alternative


def _alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each)
    else:
        yield type(None) if annotation is None else annotation
