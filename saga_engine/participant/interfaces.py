"""The participant's database, as the executor uses it; the simulation passes in a model of it."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from saga_engine.participant.barrier import BarrierTable, BatchBarrierTable, CommandResult
from saga_engine.vocabulary import Command


class HandlerRolledBack(Exception):
    """
    The handler did not succeed: its effects are rolled back, and `result` is the reply.

    The cause is the exception that the handler raised, if it is neither Rejected nor Failed.
    """

    def __init__(self, result: CommandResult) -> None:
        super().__init__()
        self.result = result


def original_error_of(error: BaseException) -> BaseException | None:
    """Return what ended a transaction: the handler's error, if it is one, or else the error."""
    return error.__cause__ if isinstance(error, HandlerRolledBack) else error


class CommandTransaction(Protocol):
    """The transaction of one command: of its row in the barrier and of all its handler writes."""

    @property
    def barrier(self) -> BarrierTable:
        """The barrier's table in this transaction."""

    @property
    def connection(self) -> object:
        """What the handler gets for its parameter of type AsyncConnection."""

    @property
    def is_active(self) -> bool:
        """Whether the handler has neither committed it nor rolled it back."""

    @property
    def is_connection_lost(self) -> bool:
        """Whether its connection was lost, or closed by the server."""

    async def commit_result(self, command: Command, result: CommandResult) -> bool:
        """
        Record the result of a claimed command and commit, now or at the end of the block.

        Returns:
            Whether this transaction is still the one that claimed the command. If not, nothing is
            recorded and nothing is committed; the caller must leave the block with an exception.
        """


class CommandDatabase(Protocol):
    """Opens a transaction for each command."""

    def transaction(self) -> AbstractAsyncContextManager[CommandTransaction]:
        """Open one transaction: committed when the block ends, rolled back when it raises."""


class SharedTransaction(Protocol):
    """The transaction of several commands, whose handlers are called one after another."""

    @property
    def barrier(self) -> BatchBarrierTable:
        """The barrier's table in this transaction."""

    @property
    def is_usable(self) -> bool:
        """Whether no handler has ended it or has tried to, and its connection is open."""

    @property
    def state_changed(self) -> bool:
        """Whether a handler may have changed what the next one finds, apart from rows."""

    def open_connection(self) -> object:
        """Make what the next handler gets for its parameter of type AsyncConnection."""

    def close_connection(self) -> None:
        """Close it, after the handler."""

    def abandon(self) -> None:
        """Close the connection at the end of the block: it is still in use, or of no more use."""

    async def set_savepoint(self) -> None:
        """Set a savepoint in the place of the one before, which must not have failed."""

    async def roll_back_to_savepoint(self) -> None:
        """Undo what was done since the savepoint."""

    async def commit_results(self, results: Sequence[tuple[Command, CommandResult | None]]) -> bool:
        """
        Record the results of the claimed commands and commit, now or at the end of the block.

        Args:
            results: None releases the claim of a command.

        Returns:
            Whether this transaction is still the one that claimed them. If not, nothing is
            recorded and nothing is committed; the caller must leave the block with an exception.
        """


class BatchDatabase(CommandDatabase, Protocol):
    """Also opens transactions for several commands."""

    def shared_transaction(self) -> AbstractAsyncContextManager[SharedTransaction]:
        """Open one transaction: committed when the block ends, rolled back when it raises."""
