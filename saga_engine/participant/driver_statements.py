"""
The barrier's statements for the driver, which takes them without SQLAlchemy.

They are those of `barrier_statements` with positional parameters, and one more: it records a result
in the same round trip as COMMIT, and so must fail if there is nothing to record.
"""

from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import TextClause

from saga_engine.participant import barrier_statements
from saga_engine.participant.barrier_statements import SEARCH_PATH_STATEMENTS
from saga_engine.postgres.statement import Statement


class SchemaStatement(Statement):
    """A statement with the barrier's table in a schema, whose name may look like a parameter."""

    def __init__(self, sql: str, schema: str | None) -> None:
        super().__init__(sql)
        self._schema = schema

    @cached_property
    def positional(self) -> tuple[str, list[str]]:
        """The SQL with `$1`, `$2` and so on, and the names of these parameters in order."""
        sql, names = super().positional
        if self._schema is None:
            return sql, [*names]
        return barrier_statements.with_qualified_table(sql, self._schema), [*names]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverStatements:
    """The statements of the barrier for the table in one schema."""

    claim: Statement
    reclaim: Statement
    insert_tombstone: Statement
    record_result: Statement
    record_result_or_fail: Statement
    select_result: Statement

    @classmethod
    def for_schema(cls, schema: str | None) -> "DriverStatements":
        """Make the statements for the table in a schema; None: that the search path finds."""

        def converted(clause: TextClause) -> Statement:
            return SchemaStatement(clause.text, schema)

        clauses = SEARCH_PATH_STATEMENTS
        return cls(
            claim=converted(clauses.claim),
            reclaim=converted(clauses.reclaim),
            insert_tombstone=converted(clauses.insert_tombstone),
            record_result=converted(clauses.record_result),
            record_result_or_fail=SchemaStatement(
                _RECORD_RESULT_OR_FAIL % clauses.record_result.text, schema
            ),
            select_result=converted(clauses.select_result),
        )


# It returns no row. Without a recorded result it divides by zero, SQLSTATE 22012, and PostgreSQL
# skips the COMMIT behind it.
_RECORD_RESULT_OR_FAIL = """
    WITH recorded AS (%s RETURNING 1)
    SELECT FROM (SELECT count(*) AS results FROM recorded) AS counted WHERE 1 / results < 0
    """
