"""
The transaction that the commands of a batch share: one claim and one COMMIT for all of them.

Handlers are called one after another, each behind a savepoint and with a connection of its own. A
handler that ends the transaction would commit the effects of the others without their results, so
COMMIT and ROLLBACK are refused, and the commands are then executed alone. What else a handler
leaves in the transaction would reach the others: a setting such as the search path, a temporary
table, a cursor. So `state_changed` ends the batch. What a function or a procedure changes is not
seen.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.participant.barrier import CommandResult
from saga_engine.participant.driver_barrier_table import batch_columns
from saga_engine.participant.url_transactions import (
    Session,
    UrlTransaction,
    UrlTransactions,
)
from saga_engine.postgres.session_changes import STATE_CHANGED_KEY
from saga_engine.vocabulary import Command


class TransactionEndRefused(Exception):
    """A handler of a batch tried to commit or roll back; its command is executed alone."""


class SharedUrlTransaction(UrlTransaction):
    """A SharedTransaction; its methods are described there."""

    def __init__(self, session: Session, transaction: Any, database: UrlTransactions) -> None:
        super().__init__(session, transaction, database)
        self._end_was_tried = False
        self._has_savepoint = False
        session.driver.end_of_transaction = self._refuse_end
        session.proxied.info[STATE_CHANGED_KEY] = False

    def _refuse_end(self) -> Exception:
        self._end_was_tried = True
        return TransactionEndRefused(
            "A handler must leave commit and rollback to the kit; tx.begin_nested() is fine."
        )

    def _allow_end(self) -> None:
        self._session.driver.end_of_transaction = None

    @property
    def is_usable(self) -> bool:
        """Whether no handler has ended it or has tried to, and its connection is open."""
        session = self._session
        is_open = session.proxied.is_valid and session.driver.is_in_transaction()
        return is_open and not self._end_was_tried

    @property
    def state_changed(self) -> bool:
        """Whether a handler may have changed what the next one finds, apart from rows."""
        return bool(self._session.proxied.info.get(STATE_CHANGED_KEY))

    def open_connection(self) -> AsyncConnection:
        """Make what the next handler gets."""
        return self.connection

    def close_connection(self) -> None:
        """Close it, after the handler."""
        self.close()

    def abandon(self) -> None:
        """Close the connection at the end of the block: it is still in use, or of no more use."""
        self._session.is_broken = True

    async def set_savepoint(self) -> None:
        """Set a savepoint in the place of the one before."""
        release = "RELEASE SAVEPOINT saga_command; " if self._has_savepoint else ""
        await self._execute(f"{release}SAVEPOINT saga_command")
        self._has_savepoint = True

    async def roll_back_to_savepoint(self) -> None:
        """Undo what was done since the savepoint."""
        await self._execute("ROLLBACK TO SAVEPOINT saga_command")

    async def commit_results(self, results: Sequence[tuple[Command, CommandResult | None]]) -> bool:
        """Record the results and commit, in one round trip; see SharedTransaction."""
        self._allow_end()
        if not self._session.driver.is_in_transaction():
            self._session.is_broken = True
            return False
        await self._restore_settings()
        statement = self._database.statements.record_all_or_fail
        return await self._commit_with(statement, batch_columns(results))

    async def commit(self) -> None:
        """Commit, unless `commit_results` has."""
        self._allow_end()
        await super().commit()

    async def roll_back(self) -> None:
        """Roll back, or close the connection if a handler has tried to."""
        self._allow_end()
        self._session.is_broken |= self._end_was_tried
        await super().roll_back()

    async def _execute(self, sql: str) -> None:
        with self._session:
            await self._session.driver.execute(sql)
