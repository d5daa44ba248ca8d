"""
The SQL of the barrier, for the table that the search path finds or for the one in a given schema.

The statements are text instead of SQLAlchemy expressions: compiling an expression for each command
would use as much CPU as the rest of the barrier. The reply is sent as text and cast to jsonb, so
that it is stored unchanged even if the user's engine has its own JSON serializer.
"""

import re
from dataclasses import dataclass

from sqlalchemy import TextClause, text

# No other transaction sees the row before this transaction commits. If the handler commits itself,
# the row keeps this failure: the effect is committed without its reply, and an operator must look.
_CLAIM = text(
    """
    WITH lock AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(:lock_id) AS lock_acquired),
    claimed AS (
        INSERT INTO saga_barrier
            (run_id, step, direction, idempotency_key, attempt, outcome, reply)
        SELECT :run_id, :step, :direction, :idempotency_key, :attempt, 'failed',
            '{"code": "transaction_ended", "message": "The handler ended its transaction itself."}'
        FROM lock WHERE lock_acquired
        ON CONFLICT (run_id, step, direction) DO NOTHING RETURNING 1)
    SELECT lock_acquired, EXISTS (SELECT FROM claimed) FROM lock
    """
)
# After a rejection an operator may retry the step: with a new key and a higher attempt.
_RECLAIM = text(
    """
    UPDATE saga_barrier SET idempotency_key = :idempotency_key, attempt = :attempt,
        claimed_at = now(), outcome = 'failed',
        reply =
        '{"code": "transaction_ended", "message": "The handler ended its transaction itself."}'
    WHERE run_id = :run_id AND step = :step AND direction = :direction
        AND outcome = 'rejected' AND idempotency_key <> :idempotency_key AND attempt < :attempt
    """
)
# A rejected action had no effect, but it could be retried later: it gets a tombstone as well.
_INSERT_TOMBSTONE = text(
    """
    WITH lock AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(:lock_id) AS lock_acquired),
    inserted AS (
        INSERT INTO saga_barrier
            (run_id, step, direction, idempotency_key, attempt, outcome, reply)
        SELECT :run_id, :step, 'action', :idempotency_key, :attempt, 'compensated', 'null'
        FROM lock WHERE lock_acquired
        ON CONFLICT (run_id, step, direction) DO UPDATE SET outcome = excluded.outcome
            WHERE saga_barrier.outcome IN ('rejected', 'compensated') RETURNING 1)
    SELECT lock_acquired, EXISTS (SELECT FROM inserted) FROM lock
    """
)
# xmin is the id of the transaction that wrote the row. The reply must be recorded by the same
# transaction, not by one that the handler started after its own COMMIT.
_RECORD_RESULT = text(
    """
    UPDATE saga_barrier SET outcome = :outcome, reply = CAST(:reply AS jsonb)
    WHERE run_id = :run_id AND step = :step AND direction = :direction
        AND xmin = CAST(pg_current_xact_id() AS xid)
    """
)
_SELECT_RESULT = text(
    """
    SELECT outcome, CAST(reply AS text) AS reply FROM saga_barrier
    WHERE run_id = :run_id AND step = :step AND direction = :direction
    """
)
RESTORE_ROLE = text("SELECT pg_catalog.set_config('role', :role, true)")
WRONG_ROLE_SQLSTATES = ("42501", "42P01")
"""A role without rights on the table, or a schema that its statements do not see."""

FIND_SCHEMA = text(
    "SELECT nspname FROM pg_catalog.pg_namespace JOIN pg_catalog.pg_class"
    " ON pg_namespace.oid = relnamespace WHERE pg_class.oid = pg_catalog.to_regclass(:name)"
)
LOCK_TABLE_CREATION = text("SELECT pg_advisory_xact_lock(hashtext('saga_barrier'))")
_DELETE_OLDER_THAN = text(
    "DELETE FROM saga_barrier WHERE ctid = ANY(ARRAY("
    "SELECT ctid FROM saga_barrier WHERE claimed_at < now() - CAST(:older_than AS interval)"
    " LIMIT :batch_size))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrierStatements:
    """The statements of the barrier for one table."""

    claim: TextClause
    reclaim: TextClause
    insert_tombstone: TextClause
    record_result: TextClause
    select_result: TextClause

    @classmethod
    def for_schema(cls, schema: str) -> "BarrierStatements":
        """Make the statements for the table in a schema; they do not depend on the search path."""
        return cls(
            claim=_with_schema(_CLAIM, schema),
            reclaim=_with_schema(_RECLAIM, schema),
            insert_tombstone=_with_schema(_INSERT_TOMBSTONE, schema),
            record_result=_with_schema(_RECORD_RESULT, schema),
            select_result=_with_schema(_SELECT_RESULT, schema),
        )


SEARCH_PATH_STATEMENTS = BarrierStatements(
    claim=_CLAIM,
    reclaim=_RECLAIM,
    insert_tombstone=_INSERT_TOMBSTONE,
    record_result=_RECORD_RESULT,
    select_result=_SELECT_RESULT,
)
"""For the table that the search path finds."""


def delete_older_than_statement(schema: str | None) -> TextClause:
    """Make the statement that deletes a batch of old rows."""
    return _DELETE_OLDER_THAN if schema is None else _with_schema(_DELETE_OLDER_THAN, schema)


def qualified_table_name(schema: str | None) -> str:
    """Quote the table's name for SQL, with its schema if there is one."""
    return "saga_barrier" if schema is None else f"{_quote_identifier(schema)}.saga_barrier"


def with_qualified_table(sql: str, schema: str) -> str:
    """Name the table with its schema in a statement of this module."""
    qualified_name = qualified_table_name(schema)
    return _TABLE_REFERENCE.sub(lambda found: f"{found[1]} {qualified_name}", sql)


def _with_schema(statement: TextClause, schema: str) -> TextClause:
    escaped_schema = schema.replace(":", r"\:")
    return text(with_qualified_table(statement.text, escaped_schema))


def _quote_identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_TABLE_REFERENCE = re.compile(r"\b(INTO|UPDATE|FROM) saga_barrier\b")
