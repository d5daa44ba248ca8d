"""The driver's statements name their table with its schema; parameters have positions."""

import re
from dataclasses import fields

import pytest

from saga_engine.participant.driver_statements import DriverStatements


@pytest.mark.parametrize(
    ("schema", "table"),
    [
        (None, "saga_barrier"),
        ("tenant", '"tenant".saga_barrier'),
        ('a"b', '"a""b".saga_barrier'),
        ("a-:b", '"a-:b".saga_barrier'),
    ],
)
def test_every_statement_of_a_schema_names_its_table_quoted(schema, table):
    statements = DriverStatements.for_schema(schema)
    for field in fields(statements):
        sql, names = getattr(statements, field.name).positional
        named = re.findall(r"(?:INTO|UPDATE|FROM|JOIN) (\S*saga_barrier)\b", sql)
        assert named, field.name
        assert set(named) == {table}, field.name
        assert {int(each) for each in re.findall(r"\$(\d+)", sql)} == {*range(1, len(names) + 1)}, (
            field.name
        )
