"""
Errors of the driver as errors of the engine, by their SQLSTATE (PostgreSQL manual, appendix A).

This is the only module that knows the driver's errors. Their messages may quote stored values, so
the engine's messages are made of the code, the constraint and the address without its password.
`sqlalchemy_errors` unwraps errors that SQLAlchemy has raised.
"""

import re

import asyncpg

from saga_engine import tls
from saga_engine.errors import (
    SagaEngineError,
    SchemaMismatch,
    SerializationFailure,
    StoreLockTimeout,
    StoreRefused,
    StoreUnavailable,
)

YOUR_CONNECTION = "your connection"
"""Stands for the address of a server, when the caller has connected to it."""

_MISSING_SCHEMA = ("42P01", "3F000", "42703", "42883")  # no table, schema, column, function
_DOES_NOT_EXIST = re.compile(
    r"""(relation|column|schema) ("[^"]+"|[\w$.]+)(?: of relation ("[^"]+"))? does not exist"""
)
_INVALID_DATA = ("22", "23", "54")  # the data, a constraint, a limit
_LOCK_NOT_AVAILABLE = "55P03"
# No connection, a read-only server, no disk space or memory, or an error of the operating system.
_UNAVAILABLE = ("08", "28", "3D", "57P", "53", "58", "25006")
# As _UNAVAILABLE, without a right, in a session that was ended, or because of another transaction.
_OF_THE_SERVER = (
    "08",
    "57P",
    "53",
    "58",
    "25006",
    "25P03",
    "25P04",
    "42501",
    "40",
    "55P03",
    "26000",
)
_SQLSTATE = re.compile("[0-9A-Z]{5}")
_SERIALIZATION_FAILURE = ("40001", "40P01")  # a conflict, a deadlock
_STALE_STATEMENT = ("0A000", "26000")
_POOLER_HINT = (
    "If a connection pooler is in between, make the engine with prepared_statement_cache_size=0 and"
    " prepared_statement_name_func=lambda: '', as docs/operations.md shows"
)
_UNAVAILABLE_MESSAGES = {
    "28000": "does not let this user in so: no line of its pg_hba.conf fits. It may demand TLS"
    " (sslmode=verify-full in the database URL), a client certificate, or another user",
    "28": "refuses the user or the password; check the database URL",
    "3D000": "has no database of that name; create it, or check the database URL",
    "42501": "does not give the role the rights it needs. The owner of the schema has them, and"
    " section 3 of docs/security.md lists what to grant to another role",
    "08003": "cut the connection. If it always does, see its log: it may refuse our certificate",
    "08P01": "or a connection pooler before it broke off. The pooler may have no connection free in"
    " time, or may not know the database or the user; its log says which",
    "08": "cut the connection",
    "57P": "is shutting down, starting up or has ended the session",
    "57014": "cancelled a statement that took too long",
    "53300": "has no connection left; lower database_pool_size or raise max_connections",
    "53100": "has no disk space left",
    "53": "has run out of a resource",
    "58": "has trouble with its disk or its system",
    "40": "undid the transaction because of another one",
    "25006": "is a standby or read-only",
    "25P03": "ended a transaction that was idle for too long",
    "25P04": "ended a transaction that took too long",
    "26000": f"has forgotten a prepared statement. {_POOLER_HINT}",
    "42P05": f"has another prepared statement of that name. {_POOLER_HINT}",
    "0A000": "has a cached plan that a schema change made stale",
}


def translate_error(error: BaseException | None, address: str) -> SagaEngineError | None:
    """
    Return the engine's error for one of asyncpg; None for a bug, or an error of another source.

    Args:
        error: an error that asyncpg raised.
        address: the server, for the message; or YOUR_CONNECTION.
    """
    if isinstance(error, asyncpg.PostgresError):
        return _translate_sqlstate(error, address)
    if isinstance(error, asyncpg.DataError | UnicodeError):
        return StoreRefused("PostgreSQL cannot hold a value: it is outside its column's type.")
    problem = _connection_problem(error)
    return StoreUnavailable(f"{_server(address)} {problem}.") if problem else None


def is_stale_connection(error: BaseException | None) -> bool:
    """
    Whether a connection is stale: open, and of no more use.

    The server does not answer, or has become read-only: after a failover a new connection finds the
    primary.
    """
    return isinstance(error, TimeoutError | asyncpg.ReadOnlySQLTransactionError)


def sqlstate_of(error: BaseException | None) -> str:
    """Return the SQLSTATE of an error; empty when it has none."""
    code = getattr(error, "sqlstate", None)
    return code if isinstance(code, str) and _SQLSTATE.fullmatch(code) else ""


def missing_name_of(error: BaseException | None) -> str:
    """Return the table, column or schema that PostgreSQL does not find; empty if it names none."""
    found = _DOES_NOT_EXIST.search(str(error)) if sqlstate_of(error) in _MISSING_SCHEMA else None
    if found is None:
        return ""
    kind, name, table = found.groups()
    kind = "table" if kind == "relation" else kind
    return f"{kind} {name} of table {table}" if table else f"{kind} {name}"


def is_stale_statement(error: BaseException) -> bool:
    """Whether a prepared statement is stale: a table was altered, or the server has dropped it."""
    return (
        isinstance(error, asyncpg.OutdatedSchemaCacheError)
        or sqlstate_of(error) in _STALE_STATEMENT
    )


def is_unavailable(error: BaseException | None) -> bool:
    """
    Whether the database is unavailable or read-only, so that every statement would fail.

    Args:
        error: of connecting, or of a statement. A TimeoutError counts as unavailable.
    """
    if code := sqlstate_of(error):
        return code.startswith(_UNAVAILABLE)
    return bool(_connection_problem(error))


def is_of_the_server(error: BaseException | None) -> bool:
    """
    Whether the server caused an error of a statement, so that the same one may succeed later.

    For statements that a user wrote: an error of the operating system or a timeout may be of what
    else the user's code does.
    """
    stale = asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError
    return isinstance(error, stale) or sqlstate_of(error).startswith(_OF_THE_SERVER)


def _connection_problem(error: BaseException | None) -> str:
    """Describe an error without a SQLSTATE; empty when it is not one of the connection."""
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if tls_problem := tls.handshake_problem(error, tls.DATABASE_PARAMETERS):
        return tls_problem
    if isinstance(error, OSError) and "rejected SSL upgrade" in str(error):  # asyncpg's message
        return "has no TLS switched on. Switch it on there, or correct the database URL"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "has no host that takes writes; its hosts are standbys, or read-only"
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        return f"cannot be reached: {reason}. Start it, or check the database URL"
    connection_lost = isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError)
    return "lost the connection" if connection_lost else ""


def _server(address: str) -> str:
    """Name the server at the beginning of a sentence."""
    return f"PostgreSQL {'on' if address == YOUR_CONNECTION else 'at'} {address}"


def _translate_sqlstate(error: asyncpg.PostgresError, address: str) -> SagaEngineError | None:
    code = error.sqlstate or ""
    if code in _MISSING_SCHEMA:
        return SchemaMismatch(
            f"{_server(address)} lacks a table, column or function of this version."
            " Run `saga-engine migrate`."
        )
    if code.startswith(_INVALID_DATA):
        violated = getattr(error, "constraint_name", None) or type(error).__name__
        return StoreRefused(f"PostgreSQL refuses the data for good: {violated} (SQLSTATE {code}).")
    if code == _LOCK_NOT_AVAILABLE:
        return StoreLockTimeout(f"{_server(address)} did not get a lock in time (SQLSTATE {code}).")
    if code in _SERIALIZATION_FAILURE:
        return SerializationFailure(
            f"{_server(address)} undid the transaction because another one was first (SQLSTATE"
            f" {code}). Roll it back and repeat it from its beginning."
        )
    for length in range(len(code), 1, -1):
        if code[:length] in _UNAVAILABLE_MESSAGES:
            return StoreUnavailable(
                f"{_server(address)} {_UNAVAILABLE_MESSAGES[code[:length]]} (SQLSTATE {code})."
            )
    return None
