"""Statements as text: their parameters, and the transactions that execute them."""

import pytest

from saga_engine.postgres.statement import text


@pytest.mark.parametrize(
    ("sql", "numbered", "names"),
    [
        ("SELECT (:a)::text, :b, :a", "SELECT ($1)::text, $2, $1", ["a", "b"]),
        ("SELECT '12:30', x::int[]", "SELECT '12:30', x::int[]", []),
        ("SELECT CAST(:a_b AS text)", "SELECT CAST($1 AS text)", ["a_b"]),
    ],
)
def test_parameters_are_numbered_in_order(sql, numbered, names):
    assert text(sql).positional == (numbered, names)
