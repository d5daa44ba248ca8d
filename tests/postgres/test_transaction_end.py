"""SQL that ends the transaction is recognised, and nothing else is."""

import pytest

from saga_engine.postgres.transaction_end import ends_transaction


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "commit work;",
        "  End",
        "ABORT",
        "rollback",
        "ROLLBACK AND CHAIN",
        "PREPARE TRANSACTION 'x'",
        "-- done\nCOMMIT",
        "/* a /* b */ c */ COMMIT",
        "; COMMIT",
        "COMMIT/* now */",
    ],
)
def test_what_ends_the_transaction_is_recognised(sql):
    assert ends_transaction(sql, is_script=False)
    assert ends_transaction(sql, is_script=True)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "ROLLBACK TO SAVEPOINT a",
        "rollback work to a",
        "ROLLBACK TRANSACTION TO SAVEPOINT a",
        "PREPARE plan AS SELECT 1",
        "INSERT INTO notes VALUES ('; COMMIT')",
        "INSERT INTO notes VALUES (E'\\'; COMMIT')",
        'SELECT "a; COMMIT" FROM b -- ; COMMIT',
        "DO $x$ BEGIN PERFORM 1; END $x$",
        "SELECT $$; COMMIT; $$",
        "SELECT '/*'; SELECT 'COMMIT' /* ; COMMIT */",
        "SELECT CASE WHEN true THEN 1 END",
        "UPDATE commit SET done = true",
        "endless",
    ],
)
def test_what_does_not_end_the_transaction_is_not(sql):
    assert not ends_transaction(sql, is_script=True)
    assert not ends_transaction(sql, is_script=False)


@pytest.mark.parametrize(
    "sql", ["INSERT INTO a VALUES (';'); COMMIT", "SELECT $$;$$; END; SELECT 1"]
)
def test_a_script_ends_it_with_any_of_its_statements(sql):
    assert ends_transaction(sql, is_script=True)


def test_one_statement_with_a_body_does_not_end_it():
    body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END"
    assert not ends_transaction(body, is_script=False)
