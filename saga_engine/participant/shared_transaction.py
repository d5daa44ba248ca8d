"""
The transaction that the commands of a batch share: one claim and one COMMIT for all of them.

Handlers are called one after another, each behind a savepoint and with a connection of its own. A
handler that ends the transaction would commit the effects of the others without their results, so
COMMIT and ROLLBACK are refused, and the commands are then executed alone. A setting that a handler
changes, such as the role or the search path, would reach the handlers behind it: `settings_changed`
ends the batch there. What a function or a procedure changes is not seen.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.participant.barrier import CommandResult
from saga_engine.participant.driver_barrier_table import batch_columns
from saga_engine.participant.url_transactions import (
    RESTORE_ROLE,
    Session,
    UrlTransaction,
    UrlTransactions,
)
from saga_engine.postgres.session_changes import (
    ROLE_CHANGED_KEY,
    SCAN_CACHE_SIZE,
    SCANNED_CHARACTERS,
)
from saga_engine.vocabulary import Command

_SETTING_CHANGED_KEY = "saga_engine_setting_changed"
"""A key of a connection's `info`: whether a handler may have changed a setting."""

_SETTING_CHANGE = re.compile(r"(?i)(?:^|;)\s*(?:set|reset|discard|do|call)\b|\bset_config\s*\(")
_COMMENT = re.compile(r"(?s)/\*.*?\*/|--[^\n]*")


class TransactionEndRefused(Exception):
    """A handler of a batch tried to commit or roll back; its command is executed alone."""


class SharedUrlTransaction(UrlTransaction):
    """A SharedTransaction; its methods are described there."""

    def __init__(self, session: Session, transaction: Any, database: UrlTransactions) -> None:
        super().__init__(session, transaction, database)
        self._end_was_tried = False
        self._has_savepoint = False
        session.driver.end_of_transaction = self._refuse_end
        session.proxied.info[_SETTING_CHANGED_KEY] = False
        session.proxied.info[ROLE_CHANGED_KEY] = database.role_unknown

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
    def settings_changed(self) -> bool:
        """Whether a handler has changed a setting until the end of the transaction."""
        return bool(self._session.proxied.info.get(_SETTING_CHANGED_KEY))

    def open_connection(self) -> AsyncConnection:
        """Make what the next handler gets."""
        return self.connection

    def close_connection(self) -> None:
        """Close it, after the handler."""
        self.close()

    def abandon(self) -> None:
        """Close the connection at the end of the block: a handler may still be using it."""
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
        await self._restore_role()
        statement = self._database.statements.record_all_or_fail
        return await self._commit_with(statement, batch_columns(results))

    async def _restore_role(self) -> None:
        """Restore the role of the session, if a handler may have changed it."""
        if self._session.proxied.info.get(ROLE_CHANGED_KEY):
            await self.barrier.execute(RESTORE_ROLE, {"role": None})

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


def track_setting_changes(connection: Connection, _: object, statement: str, *__: object) -> None:
    """Record in a connection's `info` that a statement may change a setting."""
    if _may_change_setting(statement[:SCANNED_CHARACTERS]):
        connection.info[_SETTING_CHANGED_KEY] = True


@lru_cache(maxsize=SCAN_CACHE_SIZE)
def _may_change_setting(prefix: str) -> bool:
    return bool(_SETTING_CHANGE.search(_COMMENT.sub(" ", prefix)))
