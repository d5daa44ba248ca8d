"""
The barrier's statements for the driver, which takes them without SQLAlchemy.

They are those of `barrier_statements` with positional parameters, and those of batches of commands.
A statement that records results in the same round trip as COMMIT must fail if there is nothing to
record.
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
    claim_all: Statement
    record_all_or_fail: Statement

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
            claim_all=SchemaStatement(_CLAIM_ALL, schema),
            record_all_or_fail=SchemaStatement(_RECORD_ALL_OR_FAIL, schema),
        )


# It returns no row. Without a recorded result it divides by zero, SQLSTATE 22012, and PostgreSQL
# skips the COMMIT behind it.
_RECORD_RESULT_OR_FAIL = """
    WITH recorded AS (%s RETURNING 1)
    SELECT FROM (SELECT count(*) AS results FROM recorded) AS counted WHERE 1 / results < 0
    """

# For each command its lock and, if it compensates an action of this database, that of the action.
# The action must have succeeded; all other cases are left to the statements for one command. A row
# that was committed after the snapshot of this statement makes ON CONFLICT do nothing.
_CLAIM_ALL = """
    WITH given AS MATERIALIZED (
        SELECT *, pg_try_advisory_xact_lock(lock_id)
            AND (action_lock_id IS NULL OR pg_try_advisory_xact_lock(action_lock_id)) AS locked
        FROM jsonb_to_recordset(CAST(:claims AS jsonb)) AS claim(
            number integer, run_id uuid, step text, direction text, idempotency_key text,
            attempt integer, lock_id bigint, action_lock_id bigint)),
    claimable AS MATERIALIZED (
        SELECT * FROM given WHERE locked AND (action_lock_id IS NULL OR EXISTS (
            SELECT FROM saga_barrier AS action
            WHERE action.run_id = given.run_id AND action.step = given.step
                AND action.direction = 'action' AND action.outcome = 'succeeded'))),
    claimed AS (
        INSERT INTO saga_barrier
            (run_id, step, direction, idempotency_key, attempt, outcome, reply)
        SELECT run_id, step, direction, idempotency_key, attempt, 'failed',
            '{"code": "transaction_ended", "message": "The handler ended its transaction itself."}'
        FROM claimable
        ON CONFLICT (run_id, step, direction) DO NOTHING RETURNING run_id, step, direction)
    SELECT number FROM claimable JOIN claimed USING (run_id, step, direction) ORDER BY number
    """
# It returns no row. A result without an outcome releases the claim. If another number of rows than
# that of the results is changed, it divides by zero.
_RECORD_ALL_OR_FAIL = """
    WITH given AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:results AS jsonb)) AS result(
            run_id uuid, step text, direction text, outcome text, reply text)),
    recorded AS (
        UPDATE saga_barrier AS claimed
        SET outcome = given.outcome, reply = CAST(given.reply AS jsonb) FROM given
        WHERE claimed.run_id = given.run_id AND claimed.step = given.step
            AND claimed.direction = given.direction AND given.outcome IS NOT NULL
            AND claimed.xmin = CAST(pg_current_xact_id() AS xid) RETURNING 1),
    released AS (
        DELETE FROM saga_barrier AS claimed USING given
        WHERE claimed.run_id = given.run_id AND claimed.step = given.step
            AND claimed.direction = given.direction AND given.outcome IS NULL
            AND claimed.xmin = CAST(pg_current_xact_id() AS xid) RETURNING 1)
    SELECT FROM (
        SELECT (SELECT count(*) FROM recorded) + (SELECT count(*) FROM released) AS changed,
            (SELECT count(*) FROM given) AS results) AS counted
    WHERE 1 / CAST(changed = results AS integer) < 0
    """
