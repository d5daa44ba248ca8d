"""
The author's mapping functions: their parameters, tied by name and type to where the values are.

A parameter named like a step gets that step's reply; the one annotated with the saga's input type
gets the input. What a parameter may be tied to is a rule (see `rules`); this file only reads
signatures and calls functions.
"""

import inspect
import sys
import types
from collections.abc import Callable
from collections.abc import Mapping as Values
from dataclasses import dataclass
from typing import Any, NoReturn, get_type_hints

from saga_engine.errors import DefinitionError
from saga_engine.payload.annotations import without_none
from saga_engine.payload.limits import Limits
from saga_engine.payload.payload import Payload, PayloadError
from saga_engine.vocabulary import Json


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its name, its type without `None`, and whether it may be None."""

    name: str
    kind: Any
    optional: bool


class Mapping:
    """
    A function from the input and earlier replies to a command's payload.

    Raises:
        DefinitionError: it is not a plain function whose parameters and result are annotated.
    """

    __slots__ = ("function", "parameters", "payload", "where")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.where = place_of(function)
        hints = _hints(function, self.where)
        self.parameters = tuple(
            _parameter(p, hints, self.where)
            for p in inspect.signature(function).parameters.values()
        )
        if "return" not in hints:
            raise DefinitionError(
                f"{function.__name__} does not say what it returns.",
                where=self.where,
                mend="Annotate its result with the command's payload type.",
            )
        try:
            self.payload = Payload(hints["return"])
        except PayloadError as error:
            raise DefinitionError(
                f"The result of {function.__name__} does not work: {error}.",
                where=self.where,
                mend=error.mend,
            ) from None

    def __call__(self, values: Values[str, Any], limits: Limits | None = None) -> Json:
        """Map to the payload's JSON. Whatever the author's function raises, this raises."""
        return self.payload.write(self.function(**values), limits)


def place_of(function: Callable[..., Any]) -> str:
    """
    `file:line` of a function, which must be one that a declaration may decorate.

    Raises:
        DefinitionError: it is another object, a lambda, or stands in a class.
    """
    plain = inspect.unwrap(function)
    if not inspect.isfunction(plain):
        frame = sys._getframe(2)  # noqa: SLF001 - where the decorator stands; nothing else says it
        raise DefinitionError(
            f"A {type(function).__name__} is declared where a function belongs.",
            where=f"{frame.f_code.co_filename}:{frame.f_lineno}",
            mend="Put @saga.step(command=...) or @step.compensation(command=...), with its"
            " arguments, directly on a function.",
        )
    where = f"{plain.__code__.co_filename}:{plain.__code__.co_firstlineno}"
    if plain.__name__ == "<lambda>":
        raise DefinitionError(
            "A lambda is declared where a function belongs.",
            where=where,
            mend="Write it as a function with `def`, whose name is the step's and whose"
            " parameters and result are annotated.",
        )
    if not isinstance(function, types.FunctionType) or _in_a_class(plain):
        raise DefinitionError(
            f"{plain.__qualname__} stands in a class.",
            where=where,
            mend="Declare a function outside the class; it only maps data and needs no self.",
        )
    return where


def _in_a_class(function: types.FunctionType) -> bool:
    """`Shop.book` and `test.<locals>.Shop.book` stand in a class, `test.<locals>.book` does not."""
    before, _, _ = function.__qualname__.rpartition(".")
    return bool(before) and not before.endswith("<locals>")


def refuse_bare(function: object, declared_with: str) -> NoReturn:
    """
    Refuse a decorator without arguments, which Python calls with the function.

    Raises:
        DefinitionError: always.
    """
    plain = inspect.unwrap(function) if callable(function) else None
    code = plain.__code__ if isinstance(plain, types.FunctionType) else None
    frame = sys._getframe(2)  # noqa: SLF001 - the caller of the decorator
    file, line = (
        (code.co_filename, code.co_firstlineno)
        if code
        else (frame.f_code.co_filename, frame.f_lineno)
    )
    raise DefinitionError(
        f"{declared_with} stands without its command.",
        where=f"{file}:{line}",
        mend=f'Write @....{declared_with}(command="..."): every argument has a name.',
    )


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    lazy = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_lazy(function) for is_lazy in lazy):
        raise DefinitionError(
            f"{function.__name__} is not a plain function.",
            where=where,
            mend="It only maps data: take I/O and waiting out of it.",
        )
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"An annotation of {function.__name__} cannot be read: {error}.",
            where=where,
            mend=f"Define {error.name or 'its type'} at the top level of"
            f" {function.__module__}, or import it there: a type inside a function, or under"
            " TYPE_CHECKING, is not found.",
        ) from None
    except (AttributeError, SyntaxError, TypeError) as error:
        raise DefinitionError(
            f"An annotation of {function.__name__} cannot be read: {error}.",
            where=where,
            mend="Write it as a type that the module defines or imports.",
        ) from None


def _parameter(parameter: inspect.Parameter, hints: Values[str, Any], where: str) -> Parameter:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise DefinitionError(
            f"Parameter {parameter.name!r} cannot be tied to a value by its name.",
            where=where,
            mend="Use plain parameters, no * and no /.",
        )
    if parameter.name not in hints:
        raise DefinitionError(
            f"Parameter {parameter.name!r} has no annotation.",
            where=where,
            mend="Annotate it with the input's or the reply's type.",
        )
    kind, optional = without_none(hints[parameter.name])
    return Parameter(parameter.name, kind, optional)
