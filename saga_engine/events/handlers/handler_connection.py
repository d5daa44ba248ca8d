"""The connection that an async function gets: it does not end the transaction."""

from typing import NoReturn, Self

from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.errors import DefinitionError
from saga_engine.payload.guard import UserCodeCall


class HandlerConnection(AsyncConnection):
    """
    The connection of a transaction, without the methods that end its transaction.

    SQL that ends it is refused as well, below: `SqlAlchemyTransaction.kept_open`.

    Raises:
        DefinitionError: in the function, when it calls one of these methods.
    """

    __slots__ = ("_call",)
    _call: UserCodeCall

    @classmethod
    def create(cls, connection: AsyncConnection, call: UserCodeCall) -> Self:
        """Make the connection for a call of a function."""
        made = cls(connection.engine, connection.sync_connection)
        made._call = call
        return made

    async def commit(self) -> NoReturn:
        """Refuse it."""
        raise transaction_ended(self._call)

    async def rollback(self) -> NoReturn:
        """Refuse it."""
        raise transaction_ended(self._call)

    async def close(self) -> NoReturn:
        """Refuse it."""
        raise transaction_ended(self._call)


def transaction_ended(call: UserCodeCall) -> DefinitionError:
    """Make the error for a function that ends the transaction."""
    return DefinitionError(
        f"{call.function} has ended the transaction.",
        location=call.source_location,
        fix="Leave commit and rollback to saga-engine: the checkpoint depends on them. To undo"
        " a part, use connection.begin_nested().",
    )
