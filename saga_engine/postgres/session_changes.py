"""
Which statements may change the role, or what outlives the transaction in a session.

That is settings and temporary tables. Handlers of commands and functions of projections may execute
such statements. The barrier restores the role before it records the result. A connection whose
session may have changed is closed after the transaction, so that the next one does not run with it.
"""

import re
from functools import lru_cache

from sqlalchemy import Connection

ROLE_CHANGED_KEY = "saga_engine_role_changed"
"""A key of a connection's `info`: whether the handler may have changed the role."""

SESSION_CHANGED_KEY = "saga_engine_session_changed"
"""A key of a connection's `info`: whether a statement may have changed the session."""

SCANNED_CHARACTERS = 4_000
"""The number of characters of a statement that are scanned."""

SCAN_CACHE_SIZE = 512
"""Statements whose scan is cached: each command executes the same ones. At most 8 MB."""

_ROLE_CHANGE_PATTERN = re.compile(
    r"(?is)\b(?:set|reset|discard)\b.{0,200}?\b(?:role|authorization|all)\b|\bset_config\b"
)
_COMMENT_PATTERN = re.compile(r"(?s)/\*.*?\*/|--[^\n]*")
_SESSION_CHANGE_PATTERN = re.compile(
    r"(?i)(?:^|;)\s*(?:reset|discard|set\s+(?!local\b|transaction\b|constraints\b))"
    r"|\bset_config\s*\((?!(?:[^()]|\([^()]*\))*,\s*(?:true|'t'|'true')\s*\))"
    r"|\b(?:create|into)\s+(?:(?:local|global)\s+)?temp(?:orary)?\b"
    r"(?![\s\S]*\bon\s+commit\s+drop\b)"
)


def track_session_changes(connection: Connection, _: object, statement: str, *__: object) -> None:
    """Record in a connection's `info` what a statement may change (`before_cursor_execute`)."""
    changes_role, changes_session = _scan_statement(statement[:SCANNED_CHARACTERS])
    if changes_role:
        connection.info[ROLE_CHANGED_KEY] = True
    if changes_session:
        connection.info[SESSION_CHANGED_KEY] = True


@lru_cache(maxsize=SCAN_CACHE_SIZE)
def _scan_statement(prefix: str) -> tuple[bool, bool]:
    """Whether a statement may change the role, and what outlives the transaction."""
    if "--" in prefix or "/*" in prefix:
        prefix = _COMMENT_PATTERN.sub(" ", prefix)
    return bool(_ROLE_CHANGE_PATTERN.search(prefix)), bool(_SESSION_CHANGE_PATTERN.search(prefix))
