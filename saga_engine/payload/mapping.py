"""
The author's mapping functions: their parameters by name and type, and where they are declared.

A parameter with the name of a step gets that step's reply; one annotated with the saga's input type
gets the input. Which parameters are allowed is a matter of `saga.rules`; this module only reads
signatures and calls functions.
"""

import inspect
import sys
import types
from collections.abc import Callable
from collections.abc import Mapping as Values
from dataclasses import dataclass
from functools import wraps
from typing import Any, NoReturn, TypeVar, cast, get_type_hints

from saga_engine.errors import DefinitionError
from saga_engine.payload.annotations import split_optional
from saga_engine.payload.limits import BodyLimits
from saga_engine.payload.payload import PayloadError, PayloadType
from saga_engine.vocabulary import Json

DecoratorMethod = TypeVar("DecoratorMethod", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its name, its type without `None`, and whether it may be None."""

    name: str
    python_type: Any
    optional: bool


class PayloadMapping:
    """
    A function from the input and earlier replies to a command's payload.

    Raises:
        DefinitionError: it is not a plain function whose parameters and result are annotated.
    """

    __slots__ = ("function", "parameters", "payload_type", "source_location")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.source_location = source_location_of(function)
        hints = type_hints_of(function, self.source_location)
        self.parameters = tuple(
            _parse_parameter(p, hints, self.source_location)
            for p in inspect.signature(function).parameters.values()
        )
        if "return" not in hints:
            raise DefinitionError(
                f"{function.__name__} does not say what it returns.",
                location=self.source_location,
                fix="Annotate its result with the command's payload type.",
            )
        self.payload_type = declared_type(
            hints["return"], f"The result of {function.__name__}", self.source_location
        )

    def __call__(self, values: Values[str, Any], limits: BodyLimits | None = None) -> Json:
        """Map to the payload's JSON. What the author's function raises is not caught here."""
        return self.payload_type.write(self.function(**values), limits)


def declared_type(python_type: Any, description: str, location: str) -> PayloadType:
    """
    The payload type of a declaration.

    Raises:
        DefinitionError: it cannot be one; the error names *description* and *location*.
    """
    try:
        return PayloadType(python_type)
    except PayloadError as error:
        raise DefinitionError(
            f"{description} does not work: {error}.", location=location, fix=error.fix
        ) from None


STEP_DECORATORS = "@saga.step(command=...) or @step.compensation(command=...)"


def source_location_of(function: Callable[..., Any], decorators: str = STEP_DECORATORS) -> str:
    """
    `file:line` of a function that a declaration decorates.

    Args:
        function: what is decorated.
        decorators: how the decorator is written, for the error.

    Raises:
        DefinitionError: it is another object, a lambda, or a function of a class.
    """
    unwrapped = inspect.unwrap(function)
    if not inspect.isfunction(unwrapped):
        frame = sys._getframe(2)  # noqa: SLF001 - the line of the decorator; nothing else has it
        raise DefinitionError(
            f"A {type(function).__name__} is declared where a function belongs.",
            location=f"{frame.f_code.co_filename}:{frame.f_lineno}",
            fix=f"Put {decorators}, with its arguments, directly on a function.",
        )
    location = f"{unwrapped.__code__.co_filename}:{unwrapped.__code__.co_firstlineno}"
    if unwrapped.__name__ == "<lambda>":
        raise DefinitionError(
            "A lambda is declared where a function belongs.",
            location=location,
            fix="Write it as a function with `def`, which has a name, and annotate its parameters"
            " and its result.",
        )
    if not isinstance(function, types.FunctionType) or _defined_in_class(unwrapped):
        raise DefinitionError(
            f"{unwrapped.__qualname__} is declared in a class.",
            location=location,
            fix="Declare a function outside the class; it only maps data and needs no self.",
        )
    return location


def _defined_in_class(function: types.FunctionType) -> bool:
    """`Shop.book` and `test.<locals>.Shop.book` are in a class, `test.<locals>.book` is not."""
    enclosing, _, _ = function.__qualname__.rpartition(".")
    return bool(enclosing) and not enclosing.endswith("<locals>")


def require_arguments(method: DecoratorMethod) -> DecoratorMethod:
    """Refuse `@saga.step` without parentheses, which passes the function as an argument."""

    @wraps(method)
    def wrapper(self: object, *args: object, **options: object) -> object:
        if args:
            _reject_missing_arguments(args[0], method.__name__)
        return method(self, **options)

    return cast("DecoratorMethod", wrapper)


def _reject_missing_arguments(function: object, decorator_name: str) -> NoReturn:
    """
    Refuse a decorator without arguments, which Python calls with the function.

    Raises:
        DefinitionError: always.
    """
    unwrapped = inspect.unwrap(function) if callable(function) else None
    code = unwrapped.__code__ if isinstance(unwrapped, types.FunctionType) else None
    frame = sys._getframe(2)  # noqa: SLF001 - the caller of the decorator
    file, line = (
        (code.co_filename, code.co_firstlineno)
        if code
        else (frame.f_code.co_filename, frame.f_lineno)
    )
    raise DefinitionError(
        f"{decorator_name} is used without its command.",
        location=f"{file}:{line}",
        fix=f'Write @....{decorator_name}(command="..."): every argument has a name.',
    )


def type_hints_of(function: Callable[..., Any], location: str) -> dict[str, Any]:
    """
    Read the annotations of a plain function by parameter, and of its result by `return`.

    Raises:
        DefinitionError: it is a coroutine or a generator, or an annotation cannot be read.
    """
    lazy_checks = (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    )
    if any(is_lazy(function) for is_lazy in lazy_checks):
        raise DefinitionError(
            f"{function.__name__} is not a plain function.",
            location=location,
            fix="It only maps data: take I/O and waiting out of it.",
        )
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"An annotation of {function.__name__} cannot be read: {error}.",
            location=location,
            fix=f"Define {error.name or 'its type'} at the top level of"
            f" {function.__module__}, or import it there: a type inside a function, or under"
            " TYPE_CHECKING, is not found.",
        ) from None
    except (AttributeError, SyntaxError, TypeError) as error:
        raise DefinitionError(
            f"An annotation of {function.__name__} cannot be read: {error}.",
            location=location,
            fix="Write it as a type that the module defines or imports.",
        ) from None


def _parse_parameter(
    parameter: inspect.Parameter, hints: Values[str, Any], location: str
) -> Parameter:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise DefinitionError(
            f"Parameter {parameter.name!r} cannot get its value by name.",
            location=location,
            fix="Use plain parameters, no * and no /.",
        )
    if parameter.name not in hints:
        raise DefinitionError(
            f"Parameter {parameter.name!r} has no annotation.",
            location=location,
            fix="Annotate it with the input's or the reply's type.",
        )
    kind, optional = split_optional(hints[parameter.name])
    return Parameter(parameter.name, kind, optional)


def _placeholder_function() -> None:
    """Stand for a mapping function that cannot be used."""


INVALID_MAPPING = PayloadMapping(_placeholder_function)
"""The mapping of a declaration whose error was collected; see `errors.collect_errors`."""
