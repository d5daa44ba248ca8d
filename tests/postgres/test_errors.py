"""Which error of the engine an error of the driver becomes, by its SQLSTATE."""

import asyncpg
import pytest

from saga_engine.errors import (
    SchemaMismatch,
    SerializationFailure,
    StoreLockTimeout,
    StoreRefused,
    StoreUnavailable,
)
from saga_engine.postgres import errors

SECRET = "a stored value"


def server_error(sqlstate: str, **fields: str) -> asyncpg.PostgresError:
    """The error that asyncpg raises for a message of the server."""
    found: asyncpg.PostgresError = asyncpg.PostgresError.new(
        {"S": "ERROR", "C": sqlstate, "M": SECRET, "D": SECRET, **fields}
    )
    return found


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("42P01", SchemaMismatch),
        ("42883", SchemaMismatch),
        ("23505", StoreRefused),
        ("22P02", StoreRefused),
        ("55P03", StoreLockTimeout),
        ("40001", SerializationFailure),
        ("40P01", SerializationFailure),
        ("57P01", StoreUnavailable),
        ("53300", StoreUnavailable),
        ("25006", StoreUnavailable),
        ("25P03", StoreUnavailable),
        ("25P04", StoreUnavailable),
        ("28P01", StoreUnavailable),
        ("42501", StoreUnavailable),
    ],
)
def test_an_error_is_translated_by_its_sqlstate_without_its_message(sqlstate: str, kind: type):
    found = errors.translate_error(server_error(sqlstate), "db")
    assert type(found) is kind
    assert SECRET not in str(found)


def test_a_violated_constraint_is_named():
    found = errors.translate_error(server_error("23514", n="pending_request_kind"), "db")
    assert "pending_request_kind" in str(found)


def test_missing_rights_are_listed_in_the_documentation():
    found = errors.translate_error(server_error("42501"), "db")
    assert "section 3 of docs/security.md lists what to grant" in str(found)


def test_an_error_in_a_statement_is_not_translated():
    assert errors.translate_error(server_error("42601"), "db") is None
    for no_transaction_or_a_failed_one in ("25P01", "25P02"):
        assert errors.translate_error(server_error(no_transaction_or_a_failed_one), "db") is None
    assert errors.translate_error(ValueError("x"), "db") is None


@pytest.mark.parametrize(
    ("error", "stale"),
    [(TimeoutError(), True), (server_error("25006"), True), (server_error("57P01"), False)],
)
def test_a_connection_is_stale_when_the_server_is_silent_or_read_only(
    error: Exception, stale: bool
):
    assert errors.is_stale_connection(error) is stale


def test_a_statement_is_stale_after_a_schema_change():
    assert errors.is_stale_statement(server_error("0A000"))
    assert errors.is_stale_statement(server_error("26000"))
    assert not errors.is_stale_statement(server_error("23505"))


@pytest.mark.parametrize(
    ("error", "unavailable"),
    [
        (TimeoutError(), True),
        (ConnectionRefusedError(), True),
        (server_error("57P03"), True),
        (server_error("23505"), False),
        (ValueError(), False),
    ],
)
def test_the_database_is_unavailable_when_every_statement_would_fail(
    error: Exception, unavailable: bool
):
    assert errors.is_unavailable(error) is unavailable


def test_only_a_well_formed_sqlstate_is_returned():
    assert errors.sqlstate_of(server_error("23505")) == "23505"
    assert errors.sqlstate_of(ValueError()) == ""
