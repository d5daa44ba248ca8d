"""
Which statements may change the role, the rest of the transaction, or what outlives it in a session.

That is settings, temporary tables, cursors, prepared statements and locks of the session. Handlers
of commands and functions of projections may execute such statements, through SQLAlchemy or the
driver. The barrier restores the role before it records the result. A connection whose session may
have changed is closed after the transaction, so that the next one does not run with it.

A statement is searched as it is written and without what is quoted, because either alone can be
misread: too many are found, but none is missed. What a function or a procedure does is not seen.
"""

import re
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from saga_engine.postgres import pgbouncer
from saga_engine.postgres.script import statements_of

ROLE_CHANGED_KEY = "saga_engine_role_changed"
"""A key of a connection's `info`: whether the handler may have changed the role."""

SESSION_CHANGED_KEY = "saga_engine_session_changed"
"""A key of a connection's `info`: whether a statement may have changed the session."""

STATE_CHANGED_KEY = "saga_engine_state_changed"
"""A key of a connection's `info`: whether a later statement of the transaction may see a change."""

_SCANNED_CHARACTERS = 4_000
"""The number of characters that are scanned of a statement; a script is scanned as a whole."""

_SCAN_CACHE_SIZE = 512
"""Statements whose scan is cached: each command executes the same ones. At most 8 MB."""

_TEMPORARY = (
    r"\b(?:create(?:\s+or\s+replace)?|into)\s+(?:(?:local|global)\s+)?temp(?:orary)?\b"
    r"|\bcreate\b[^;(]{0,200}\bpg_temp\b|(?<!\binsert\s)\binto\s+(?:table\s+)?\"?pg_temp\b"
)
_SETTINGS_TABLE = r"\bupdate\b[^;]{0,200}?\bpg_settings\b"

_PATTERNS = {
    ROLE_CHANGED_KEY: re.compile(
        r"(?is)\b(?:set|reset|discard)\b.{0,200}?\b(?:role|authorization|all)\b|\bset_config\b"
        rf"|{_SETTINGS_TABLE}"
    ),
    SESSION_CHANGED_KEY: re.compile(
        r"(?i)(?:^|;)\s*(?:(?:reset|discard|deallocate|load|listen)\b"
        r"|prepare\s+(?!\s*transaction\b)|declare\b[^;]*\bwith\s+hold\b"
        r"|set\s+(?!\s*(?:local|transaction|constraints)\b))"
        r"|\bset_config\b\"?\s*\((?!(?:[^()]|\([^()]*\))*,\s*(?:true|'t'|'true')\s*\))"
        rf"|{_SETTINGS_TABLE}"
        r"|\bpg_(?:try_)?advisory_lock(?:_shared)?\b"
        rf"|(?:{_TEMPORARY})(?![^;]*\bon\s+commit\s+drop\b)"
    ),
    STATE_CHANGED_KEY: re.compile(
        r"(?i)(?:^|;)\s*(?:set|reset|discard|do|call|declare|prepare|deallocate)\b"
        rf"|\bset_config\b|{_SETTINGS_TABLE}|{_TEMPORARY}"
    ),
}


def track_changes(engine: AsyncEngine) -> None:
    """Record changes by all statements on the connections of `create_database_engine`."""
    event.listen(engine.sync_engine, "connect", _track_driver)
    # In front of others: a statement that is refused is not sent.
    event.listen(
        engine.sync_engine, "before_cursor_execute", pgbouncer.check_prepared_statement, insert=True
    )


def track_changes_by_sqlalchemy(engine: AsyncEngine) -> None:
    """Record changes by the statements of SQLAlchemy only, with any driver."""
    event.listen(engine.sync_engine, "before_cursor_execute", _record_changes_of_sqlalchemy)


def _track_driver(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    def record(sql: str, is_script: bool) -> None:  # noqa: FBT001 - the signature of the hook
        record_changes(entry.info, sql, is_script=is_script)

    driver: Any = connection.driver_connection
    driver.on_statement = record


def _record_changes_of_sqlalchemy(
    connection: Connection, _: object, statement: str, *__: object
) -> None:
    record_changes(connection.info, statement)


def record_changes(info: MutableMapping[Any, Any], sql: str, *, is_script: bool = False) -> None:
    """
    Record in the `info` of a connection what SQL may change.

    Args:
        info: of the connection; only keys of this module are added.
        sql: one statement, or a script.
        is_script: whether it may have several statements.
    """
    is_long_script = is_script and len(sql) > _SCANNED_CHARACTERS
    for key in _scan(sql) if is_long_script else _scan_cached(sql[:_SCANNED_CHARACTERS]):
        info[key] = True


@lru_cache(maxsize=_SCAN_CACHE_SIZE)
def _scan_cached(sql: str) -> tuple[str, ...]:
    return _scan(sql)


def _scan(sql: str) -> tuple[str, ...]:
    """Return the keys of what SQL may change."""
    code = ";".join(statements_of(sql))
    return tuple(
        key for key, pattern in _PATTERNS.items() if pattern.search(sql) or pattern.search(code)
    )
