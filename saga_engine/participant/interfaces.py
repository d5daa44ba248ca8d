"""The participant's database, as the executor uses it; the simulation passes in a model of it."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from saga_engine.participant.barrier import BarrierTable, CommandResult
from saga_engine.vocabulary import Command


class HandlerRolledBack(Exception):
    """
    The handler did not succeed: its effects are rolled back, and `result` is the reply.

    The cause is the exception that the handler raised, if it is neither Rejected nor Failed.
    """

    def __init__(self, result: CommandResult) -> None:
        super().__init__()
        self.result = result


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
