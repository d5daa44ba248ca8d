"""
One of the user's functions: its signature, checked at its declaration, and its call with JSON.

Parameters are recognised by their annotation, never by name or position: one payload, an optional
AsyncConnection (the transaction of the barrier), an optional CommandContext. A handler must be
`async`: a plain function would block every other handler while it waits.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import DefinitionError
from saga_engine.participant.context import CommandContext
from saga_engine.participant.failure_codes import FailureCode
from saga_engine.payload.mapping import declared_type
from saga_engine.payload.payload import PayloadError, PayloadType
from saga_engine.protocol.rejection import Failed
from saga_engine.vocabulary import Command, Json

HandlerFunction = Callable[..., Any]


class Handler:
    """
    A command's handler.

    Args:
        command_name: the command.
        function: the user's function; `source_file` is the file of its code.
        compensated_command: the command that it compensates; empty if it is not a compensation.
        has_database: whether its participant has a database.

    Raises:
        DefinitionError: the function is not async, or an annotation is missing or does not fit.
    """

    __slots__ = (
        "_context_parameter",
        "_function",
        "_payload_parameter",
        "_result_type",
        "_transaction_parameter",
        "command_name",
        "compensated_command",
        "source_file",
    )

    def __init__(
        self,
        command_name: str,
        function: HandlerFunction,
        *,
        compensated_command: str,
        has_database: bool,
    ) -> None:
        self.command_name = command_name
        self.compensated_command = compensated_command
        signature = _Signature.from_function(function)
        if signature.transaction_parameter and not has_database:
            raise signature.definition_error(
                "has a parameter of type AsyncConnection, and its participant has no database",
                "Give the participant database=..., or remove the parameter.",
            )
        self._function = function
        self.source_file = signature.location.rpartition(":")[0]
        self._context_parameter = signature.context_parameter
        self._transaction_parameter = signature.transaction_parameter
        self._payload_parameter = signature.payload_parameter
        self._result_type = signature.result_type

    @property
    def payload_type(self) -> PayloadType:
        """The type of its payload."""
        return self._payload_parameter[1]

    @property
    def result_type(self) -> PayloadType:
        """The type of its result."""
        return self._result_type

    @property
    def takes_connection(self) -> bool:
        """Whether it has a parameter of type AsyncConnection."""
        return bool(self._transaction_parameter)

    async def __call__(self, command: Command, connection: object) -> Json:
        """
        Call the function with a command's payload, and return its result as JSON.

        Args:
            command: with its payload, decrypted.
            connection: for the parameter of type AsyncConnection; None without a database.

        Raises:
            Failed: the payload or the result does not match its annotation. An exception of the
                function is raised unchanged.
        """
        name, payload = self._payload_parameter
        try:
            arguments = {name: payload.read(_decoded_payload(command))}
        except PayloadError as error:
            raise Failed(FailureCode.INVALID_PAYLOAD, f"The payload {error}.") from None
        if self._context_parameter:
            arguments[self._context_parameter] = CommandContext.from_command(command)
        if self._transaction_parameter:
            arguments[self._transaction_parameter] = connection
        result = await self._function(**arguments)
        try:
            return self._result_type.write(result)
        except PayloadError as error:
            text = f"The handler's result does not match its annotation: {error}."
            raise Failed(FailureCode.INVALID_RESULT, text) from None


def _decoded_payload(command: Command) -> Json:
    assert not isinstance(command.payload, bytes), "a received command is decoded"
    return command.payload


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signature:
    name: str
    location: str
    payload_parameter: tuple[str, PayloadType]
    result_type: PayloadType
    context_parameter: str
    transaction_parameter: str

    @classmethod
    def from_function(cls, function: HandlerFunction) -> "_Signature":
        location = _source_location(function)
        name = function.__name__
        hints = _type_hints(function, location)
        special_parameters: dict[type, str] = {}
        payload_parameters: list[str] = []
        for parameter in inspect.signature(function).parameters.values():
            annotation = _parameter_annotation(
                parameter, hints, f"{name}'s parameter {parameter.name!r}", location
            )
            if annotation in (CommandContext, AsyncConnection):
                special_parameters[annotation] = parameter.name
            else:
                payload_parameters.append(parameter.name)
        if len(payload_parameters) != 1:
            raise DefinitionError(
                f"{name} has {len(payload_parameters)} payload parameters.",
                location=location,
                fix="Give it one, annotated with the command's pydantic model.",
            )
        return cls(
            name=name,
            location=location,
            payload_parameter=(
                payload_parameters[0],
                _payload_type(hints[payload_parameters[0]], f"The payload of {name}", location),
            ),
            result_type=_payload_type(
                hints.get("return", _MISSING), f"The result of {name}", location
            ),
            context_parameter=special_parameters.get(CommandContext, ""),
            transaction_parameter=special_parameters.get(AsyncConnection, ""),
        )

    def definition_error(self, problem: str, fix: str) -> DefinitionError:
        return DefinitionError(f"{self.name} {problem}.", location=self.location, fix=fix)


_MISSING = object()


def _source_location(function: HandlerFunction) -> str:
    if not inspect.isfunction(function):
        raise DefinitionError(
            f"The decorator is applied to a {type(function).__name__}, not to a function.",
            location=str(getattr(function, "__module__", "the module")),
            fix="Put the decorator, with its arguments, directly on an async function.",
        )
    code = inspect.unwrap(function).__code__
    location = f"{code.co_filename}:{code.co_firstlineno}"
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(
            f"{function.__name__} is not an async function.",
            location=location,
            fix="Declare it with async def; call blocking code with asyncio.to_thread.",
        )
    return location


def _type_hints(function: HandlerFunction, location: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise DefinitionError(
            f"An annotation of {function.__name__} cannot be read: {error}.",
            location=location,
            fix="Define or import its type before the function.",
        ) from None


def _parameter_annotation(
    parameter: inspect.Parameter, hints: dict[str, Any], description: str, location: str
) -> Any:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise DefinitionError(
            f"{description} is variadic or positional-only.",
            location=location,
            fix="Declare it without * and without /.",
        )
    if parameter.name not in hints:
        raise DefinitionError(
            f"{description} has no annotation.",
            location=location,
            fix="Annotate it with the payload's model, AsyncConnection or CommandContext.",
        )
    return hints[parameter.name]


def _payload_type(annotation: Any, description: str, location: str) -> PayloadType:
    if annotation is _MISSING:
        raise DefinitionError(
            f"{description} has no annotation.",
            location=location,
            fix="Annotate it; use None for a handler that returns nothing.",
        )
    return declared_type(annotation, description, location)
