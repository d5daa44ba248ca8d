"""A script is split into its statements, and what is quoted or a comment is not code."""

import pytest

from saga_engine.postgres.script import statements_of


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1; SELECT 2;", ["SELECT 1", "SELECT 2", ""]),
        ("SELECT '--'; SET ROLE a", ["SELECT", "SET ROLE a"]),
        ("SELECT '/*'; SET ROLE a; SELECT '*/'", ["SELECT", "SET ROLE a", "SELECT"]),
        ("-- who\nSET ROLE a", ["SET ROLE a"]),
        ("/* a /* b */ ; */ SET ROLE a", ["SET ROLE a"]),
        ("SELECT $$;$$, $a$;$$;$a$, E'\\';', \"b;c\"", ["SELECT  ,  ,  ,"]),
        ("SELECT 'it''s;'", ["SELECT"]),
        ("SELECT 'cut off; SET ROLE a", ["SELECT 'cut off", "SET ROLE a"]),
        ("SELECT 1 /* cut off; SET ROLE a", ["SELECT 1"]),
    ],
)
def test_a_script_is_split_at_the_semicolons_of_its_code(sql, statements):
    assert [" ".join(each.split()) for each in statements_of(sql)] == [
        " ".join(each.split()) for each in statements
    ]
