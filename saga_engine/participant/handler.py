"""
One of the user's functions: its signature checked when it is declared, its call from JSON to JSON.

Parameters are recognised by their annotation, never by name or place: one payload, an optional
AsyncConnection (the transaction of the barrier), an optional CommandContext. A handler must be
`async`: a plain function would stop every other handler while it waits.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import DefinitionError
from saga_engine.participant.context import CommandContext
from saga_engine.participant.errors import Failed
from saga_engine.payload.payload import Payload, PayloadError
from saga_engine.protocol.command import Command
from saga_engine.vocabulary import Json

Function = Callable[..., Any]


class Handler:
    """
    A command's handler.

    `undoes` is the command it compensates, empty when it is no compensation; `file` has its code.

    Raises:
        DefinitionError: the function is not async, or an annotation is missing or does not fit.
    """

    __slots__ = (
        "_context",
        "_function",
        "_payload",
        "_result",
        "_transaction",
        "command",
        "file",
        "undoes",
    )

    def __init__(self, command: str, function: Function, *, undoes: str, database: bool) -> None:
        self.command = command
        self.undoes = undoes
        signature = _Signature.of(function)
        if signature.transaction and not database:
            raise signature.refuse(
                "wants an AsyncConnection, and its participant has no database",
                "Give the participant database=..., or take the parameter out.",
            )
        self._function = function
        self.file = signature.where.rpartition(":")[0]
        self._context = signature.context
        self._transaction = signature.transaction
        self._payload = signature.payload
        self._result = signature.result

    async def __call__(self, command: Command, tx: AsyncConnection | None) -> Json:
        """
        Perform a command; the result as JSON. What the user's function raises, this raises.

        Raises:
            Failed: the payload, or what the function returned, does not fit its annotation.
        """
        name, payload = self._payload
        try:
            arguments = {name: payload.read(_json(command))}
        except PayloadError as error:
            raise Failed("invalid_payload", f"The payload {error}.") from None
        if self._context:
            arguments[self._context] = CommandContext.of(command)
        if self._transaction:
            arguments[self._transaction] = tx
        result = await self._function(**arguments)
        try:
            return self._result.write(result)
        except PayloadError as error:
            raise Failed("invalid_result", f"The handler's result does not fit: {error}.") from None


def _json(command: Command) -> Json:
    assert not isinstance(command.payload, bytes), "a command that arrived is decoded"
    return command.payload


@dataclass(frozen=True, slots=True)
class _Signature:
    name: str
    where: str
    payload: tuple[str, Payload]
    result: Payload
    context: str
    transaction: str

    @classmethod
    def of(cls, function: Function) -> "_Signature":
        where = _where(function)
        name = function.__name__
        hints = _hints(function, where)
        names: dict[type, str] = {}
        payloads: list[str] = []
        for parameter in inspect.signature(function).parameters.values():
            kind = _kind(parameter, hints, f"{name}'s parameter {parameter.name!r}", where)
            if kind in (CommandContext, AsyncConnection):
                names[kind] = parameter.name
            else:
                payloads.append(parameter.name)
        if len(payloads) != 1:
            raise DefinitionError(
                f"{name} takes {len(payloads)} payloads.",
                where=where,
                mend="Take one, annotated with the command's pydantic model.",
            )
        return cls(
            name=name,
            where=where,
            payload=(payloads[0], _payload(hints[payloads[0]], f"The payload of {name}", where)),
            result=_payload(hints.get("return", _MISSING), f"The result of {name}", where),
            context=names.get(CommandContext, ""),
            transaction=names.get(AsyncConnection, ""),
        )

    def refuse(self, problem: str, mend: str) -> DefinitionError:
        return DefinitionError(f"{self.name} {problem}.", where=self.where, mend=mend)


_MISSING = object()


def _where(function: Function) -> str:
    if not inspect.isfunction(function):
        raise DefinitionError(
            f"A {type(function).__name__} is declared where a function belongs.",
            where=str(getattr(function, "__module__", "the module")),
            mend="Put the decorator, with its arguments, directly on an async function.",
        )
    code = inspect.unwrap(function).__code__
    where = f"{code.co_filename}:{code.co_firstlineno}"
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(
            f"{function.__name__} is not an async function.",
            where=where,
            mend="Declare it with async def; wrap what blocks in asyncio.to_thread.",
        )
    return where


def _hints(function: Function, where: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise DefinitionError(
            f"An annotation of {function.__name__} cannot be read: {error}.",
            where=where,
            mend="Define or import its type before the function.",
        ) from None


def _kind(parameter: inspect.Parameter, hints: dict[str, Any], what: str, where: str) -> Any:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise DefinitionError(f"{what} is no plain one.", where=where, mend="Use no * and no /.")
    if parameter.name not in hints:
        raise DefinitionError(
            f"{what} has no annotation.",
            where=where,
            mend="Annotate it with the payload's model, AsyncConnection or CommandContext.",
        )
    return hints[parameter.name]


def _payload(kind: Any, what: str, where: str) -> Payload:
    if kind is _MISSING:
        raise DefinitionError(
            f"{what} has no annotation.", where=where, mend="Annotate it, with None for nothing."
        )
    try:
        return Payload(kind)
    except PayloadError as error:
        raise DefinitionError(
            f"{what} does not work: {error}.", where=where, mend=error.mend
        ) from None
