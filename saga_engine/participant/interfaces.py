"""The participant's database, as the executor uses it; the simulation passes in a model of it."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from saga_engine.participant.barrier import BarrierTable


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


class CommandDatabase(Protocol):
    """Opens a transaction for each command."""

    def transaction(self) -> AbstractAsyncContextManager[CommandTransaction]:
        """Open one transaction: committed when the block ends, rolled back when it raises."""
