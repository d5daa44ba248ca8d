"""
What users write: a participant, and which of their functions handles which command.

    payments = Participant("payments", database=url)

    @payments.command("payment.charge")
    async def charge(command: ChargeCard, tx: AsyncConnection) -> Charge: ...

    @payments.compensation("payment.refund", of="payment.charge")
    async def refund(command: RefundCard, tx: AsyncConnection) -> None: ...

A declaration opens no connection; `service` does. Every rule is checked at the declaration, and the
error names its file and line.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from saga_engine.errors import DefinitionError
from saga_engine.participant.handler import Handler, HandlerFunction
from saga_engine.saga.rules import COMMAND_PATTERN, MAX_COMMAND_BYTES, SAGA_NAME_PATTERN

F = TypeVar("F", bound=HandlerFunction)


class Participant:
    """
    A service that handles commands.

    Args:
        name: names its queue, `saga.participant.<name>`. All its processes share the name.
        database: where its handlers keep their effects, as an AsyncEngine of SQLAlchemy or a
            postgresql+asyncpg:// URL. With it every effect happens once (see `barrier`); without
            it handlers get an idempotency key to pass on.
        create_barrier: whether the barrier's table is created at start; False if it is part of your
            own migrations (`barrier.table`).
        barrier_schema: an existing schema for the barrier's table. Without it the table is in the
            first schema of the search path, which is read once at start.
        batch: whether commands that arrive together share a transaction, which makes the barrier
            several times cheaper. Their handlers are called one after another, so it is for
            handlers that write to the database and return, and wait for nothing else. `database`
            must be a URL.

    Raises:
        DefinitionError: the name is not valid for a queue, or batch has no URL.
    """

    def __init__(
        self,
        name: str,
        *,
        database: AsyncEngine | str | None = None,
        create_barrier: bool = True,
        barrier_schema: str | None = None,
        batch: bool = False,
    ) -> None:
        if not _matches(SAGA_NAME_PATTERN, name):
            raise DefinitionError(
                f"Participant {name!r} has an invalid name.",
                location=_caller_location(),
                fix="Use a to z, 0 to 9, - and _, at most 64.",
            )
        if batch and not isinstance(database, str):
            raise DefinitionError(
                f"Participant {name} has batch=True, and its database is not given as a URL.",
                location=_caller_location(),
                fix="Give it database=URL, or leave batch out.",
            )
        self.name = name
        self.database = database
        self.batch = batch
        self.create_barrier = create_barrier
        self.barrier_schema = barrier_schema
        self._handlers: dict[str, Handler] = {}

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Its handlers by command."""
        return MappingProxyType(self._handlers)

    def command(self, name: str) -> Callable[[F], F]:
        """
        Declare the async function that handles a command.

        Args:
            name: the command: words of letters, digits, - and _ with dots between them.

        Raises:
            DefinitionError: the name is not valid, or has a handler already.
        """
        return self._declare(name, compensated_command="")

    def compensation(self, name: str, *, of: str) -> Callable[[F], F]:
        """
        Declare the async function that undoes what the command `of` did.

        It is called only if that command took effect. A compensation of a command that never ran
        succeeds without calling it, and the command is refused afterwards. Both handlers must use
        the same database for that; declare a command that undoes another participant's with
        `command`.

        Args:
            name: the compensating command.
            of: the command it undoes, which this participant handles.

        Raises:
            DefinitionError: the name is not valid or has a handler already, or this participant
                does not handle the command *of*.
        """
        if of not in self._handlers or self._handlers[of].compensated_command:
            raise DefinitionError(
                f"{name} is declared as compensation of {of!r}, which {self.name} does not handle.",
                location=_caller_location(),
                fix=f"Declare @{self.name}.command({of!r}) before it; if another participant"
                " handles it, declare this with command.",
            )
        return self._declare(name, compensated_command=of)

    def _declare(self, name: str, *, compensated_command: str) -> Callable[[F], F]:
        if not _matches(COMMAND_PATTERN, name) or len(name) > MAX_COMMAND_BYTES:
            raise DefinitionError(
                f"{name!r} is not a valid name for a command.",
                location=_caller_location(2),
                fix="Use words of letters, digits, - and _ with dots between them, at most"
                f" {MAX_COMMAND_BYTES} characters.",
            )
        if name in self._handlers:
            raise DefinitionError(
                f"{self.name} already handles {name}.",
                location=_caller_location(2),
                fix="Give each command one handler.",
            )

        def decorator(function: F) -> F:
            self._handlers[name] = Handler(
                name,
                function,
                compensated_command=compensated_command,
                has_database=self.database is not None,
            )
            return function

        return decorator


def _caller_location(extra_frames: int = 1) -> str:
    """`file:line` of the caller of this function's caller, *extra_frames* frames further up."""
    frame = inspect.stack(context=0)[extra_frames + 1]
    return f"{frame.filename}:{frame.lineno}"


def _matches(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and pattern.match(name) is not None
