"""
Months of runs: partitions that are added ahead of time and dropped when they have expired.

Runs and events are not deleted one by one. A month is dropped when all its runs have been finished
for `run_retention_days` and no start of that month is pending, in this order:

1. The index that finds late finishers is completed, and the business keys of the runs are released.
2. The month is detached from the tables.
3. Its incidents and pending requests are deleted in batches, and its tables are dropped.

Tables are locked in the order that workers use, `run` before `event` and each before its
partitions, with a short timeout and retries.

A business key is released if its run had finished before the cutoff, which is set when the month is
checked. A run that starts or finishes after that keeps its key and its month.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from saga_engine.errors import StoreLockTimeout
from saga_engine.postgres.statement import Statement, Transaction, TransactionSource, text

MONTHS_AHEAD = 12
"""Months after the current one that have partitions, unless the settings say otherwise."""

_PAGE_SIZE = 5000  # rows in one transaction
_RANGES_PER_TRANSACTION = 256
"""
Ranges of a BRIN index that one transaction summarizes: 256 MB of the table, which PostgreSQL reads
in less than a second.
"""
_RETRY_DELAY, _RETRY_DELAY_MAX = 0.05, 1.0  # seconds between two attempts to lock


@dataclass(frozen=True, slots=True)
class LockRetry:
    """How many seconds one attempt to lock a table waits, and how many attempts are made."""

    lock_timeout: float = 0.2
    max_attempts: int = 20


@dataclass(frozen=True, slots=True)
class MaintenanceResult:
    """
    The partitions that were added, and the months that were dropped, such as `2026_11`.

    `missing` partitions could not be added, because the default partitions have too many rows.
    `lock_attempts` is how often tables were locked.
    """

    created: int
    dropped: tuple[str, ...]
    missing: int = 0
    lock_attempts: int = 0


async def maintain(
    database: TransactionSource,
    *,
    retention_days: int,
    months_ahead: int = MONTHS_AHEAD,
    lock_retry: LockRetry = LockRetry(),
) -> MaintenanceResult:
    """
    Add the partitions of the coming months and drop the months that have expired.

    Any number of workers may do this at once. With *retention_days* of 0 nothing is dropped. If
    there is nothing to do, no table is locked.

    Raises:
        StoreLockTimeout: the tables were locked in each attempt; a later call continues.
        StoreUnavailable: the database is unavailable.
    """
    locks = _TableLocks(database, lock_retry)
    async with database.transaction() as tx:
        missing: int = (
            await tx.execute(_COUNT_MISSING, {"months_ahead": months_ahead})
        ).scalar_one()
    created = 0
    if missing:
        created = await locks.execute(_ADD_PARTITIONS, {"months_ahead": months_ahead})
    if retention_days == 0:
        return MaintenanceResult(created, (), missing - created, locks.attempts)
    async with database.transaction() as tx:
        cutoff: datetime = (await tx.execute(_CUTOFF, {"days": retention_days})).scalar_one()
        months = list((await tx.execute(_EXPIRED_MONTHS, {"cutoff": cutoff})).scalars())
    for month in months:
        await _detach_month(database, locks, month, cutoff)
    async with database.transaction() as tx:
        detached = list((await tx.execute(_DETACHED_MONTHS)).scalars())
    for month in detached:
        await _delete_month(database, month)
    return MaintenanceResult(created, tuple(detached), missing - created, locks.attempts)


class _TableLocks:
    """Executes statements that lock whole tables, with a short lock timeout and retries."""

    def __init__(self, database: TransactionSource, lock_retry: LockRetry) -> None:
        self.attempts = 0
        self._database = database
        self._lock_retry = lock_retry

    async def execute(self, statement: Statement, arguments: dict[str, object]) -> int:
        """Execute a statement, and return its result."""
        attempt = 0
        while True:
            self.attempts += 1
            attempt += 1
            try:
                async with self._database.transaction() as tx:
                    timeout = f"{self._lock_retry.lock_timeout * 1000:.0f}"
                    await tx.execute(_SET_LOCK_TIMEOUT, {"timeout": timeout})
                    result = await tx.execute(statement, arguments)
                    return int(result.scalar_one())
            except StoreLockTimeout:
                if attempt >= self._lock_retry.max_attempts:
                    raise
            await asyncio.sleep(
                min(_RETRY_DELAY_MAX, _RETRY_DELAY * 2**attempt)
            )  # the waiting workers have their turn


async def _detach_month(
    database: TransactionSource, locks: _TableLocks, month: str, cutoff: datetime
) -> None:
    """Detach a month, unless it is still needed."""
    arguments = {"month": month, "cutoff": cutoff}
    async with database.transaction() as tx:
        if (await tx.execute(_MONTH_NEEDED, arguments)).scalar_one():
            return
    await _summarize_finished_index(database, month)
    after_run_id: str | None = "00000000-0000-0000-0000-000000000000"
    while after_run_id is not None:
        async with database.transaction() as tx:
            after_run_id = await _release_keys(tx, month, after_run_id, cutoff)
    await locks.execute(_DETACH_MONTH, arguments)


async def _summarize_finished_index(database: TransactionSource, month: str) -> None:
    """
    Complete the index on `finished_at` before its table is locked.

    PostgreSQL would read the ranges that no vacuum has summarized row by row, while every worker
    waits.
    """
    first_page: int | None = 0
    while first_page is not None:
        async with database.transaction() as tx:
            arguments = {"month": month, "first": first_page, "ranges": _RANGES_PER_TRANSACTION}
            first_page = (await tx.execute(_SUMMARIZE, arguments)).scalar_one()


async def _release_keys(
    tx: Transaction, month: str, after_run_id: str, cutoff: datetime
) -> str | None:
    """Release one page of keys, and return its last run id; None when there was no page."""
    statement = text(_RELEASE_KEYS.format(month=month))
    result = await tx.execute(
        statement, {"after": after_run_id, "page": _PAGE_SIZE, "cutoff": cutoff}
    )
    last_run_id: str | None = result.scalar_one_or_none()
    return last_run_id


async def _delete_month(database: TransactionSource, month: str) -> None:
    """Delete the rows and tables of a detached month, which no worker reads any more."""
    for statement in (_DELETE_INCIDENTS, _DELETE_REQUESTS):
        deleted = _PAGE_SIZE
        while deleted == _PAGE_SIZE:
            async with database.transaction() as tx:
                result = await tx.execute(statement, {"month": month, "page": _PAGE_SIZE})
                deleted = result.rowcount
    async with database.transaction() as tx:
        await tx.execute(text(_DROP_MONTH.format(month=month)))


# Every later statement waits behind a waiting lock, so an attempt gives up soon and is repeated.
_SET_LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', :timeout, true)")

_COUNT_MISSING = text(
    "SELECT count(*) FROM saga_engine.missing_partitions(CAST(:months_ahead AS integer))"
)

_ADD_PARTITIONS = text("SELECT saga_engine.add_partitions(CAST(:months_ahead AS integer))")

_CUTOFF = text("SELECT clock_timestamp() - make_interval(days => CAST(:days AS integer))")

# The engine has named these tables, so the names need no quotes below; the pattern checks them.
_EXPIRED_MONTHS = text(
    """
    SELECT month FROM (
        SELECT substr(c.relname, 5) AS month
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'saga_engine.run'::regclass
            AND c.relname ~ '^run_[0-9]{4}_[0-9]{2}$') AS months
    WHERE to_date(month, 'YYYY_MM') + interval '1 month'
        < CAST(:cutoff AS timestamptz) AT TIME ZONE 'UTC'
    ORDER BY month"""
)

_DETACHED_MONTHS = text(
    """
    SELECT substr(c.relname, 5) FROM pg_class AS c
    WHERE c.relnamespace = 'saga_engine'::regnamespace AND c.relkind = 'r'
        AND NOT c.relispartition AND c.relname ~ '^run_[0-9]{4}_[0-9]{2}$'
    ORDER BY 1"""
)

_MONTH_NEEDED = text(
    "SELECT saga_engine.month_needed(CAST(:month AS text), CAST(:cutoff AS timestamptz))"
)

_DETACH_MONTH = text(
    "SELECT saga_engine.detach_month(CAST(:month AS text), CAST(:cutoff AS timestamptz))::integer"
)

# Returns the first page of the next portion; null when there is none.
_SUMMARIZE = text(
    """
    WITH index AS MATERIALIZED (
        SELECT i.indexrelid AS oid, pg_relation_size(i.indrelid) / 8192 AS pages,
            coalesce((SELECT option_value::bigint FROM pg_options_to_table(c.reloptions)
                WHERE option_name = 'pages_per_range'), 128) AS step
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
        JOIN pg_am AS a ON a.oid = c.relam
        WHERE a.amname = 'brin'
            AND i.indrelid = to_regclass('saga_engine.run_' || CAST(:month AS text))
    ), done AS MATERIALIZED (
        SELECT count(brin_summarize_range(x.oid, p.page)) AS ranges
        FROM index AS x, LATERAL generate_series(CAST(:first AS bigint), least(x.pages - 1,
            CAST(:first AS bigint) + x.step * CAST(:ranges AS bigint) - 1), x.step) AS p(page)
    )
    SELECT min(CASE
        WHEN (SELECT d.ranges FROM done AS d) IS NULL THEN NULL  -- or the planner leaves it out
        WHEN CAST(:first AS bigint) + x.step * CAST(:ranges AS bigint) < x.pages
            THEN CAST(:first AS bigint) + x.step * CAST(:ranges AS bigint) END)
    FROM index AS x"""
)

_RELEASE_KEYS = """
    WITH page AS MATERIALIZED (
        SELECT r.run_id, d.name, r.key, r.finished_at
        FROM saga_engine.run_{month} AS r
        JOIN saga_engine.definition AS d ON d.id = r.definition_id
        WHERE r.run_id > CAST(:after AS uuid) ORDER BY r.run_id LIMIT :page
    ), released AS (
        DELETE FROM saga_engine.business_key AS k USING page
        WHERE k.saga = page.name AND k.key = page.key AND k.run_id = page.run_id
            AND page.finished_at <= CAST(:cutoff AS timestamptz)
    )
    SELECT run_id::text FROM page ORDER BY run_id DESC LIMIT 1"""

_DROP_MONTH = "DROP TABLE saga_engine.event_{month}, saga_engine.run_{month}"

_IN_DROPPED_MONTH = """
    x.run_id >= saga_engine.month_bound(to_date(:month, 'YYYY_MM'))
        AND x.run_id < saga_engine.month_bound(to_date(:month, 'YYYY_MM') + interval '1 month')
        AND NOT EXISTS (SELECT FROM saga_engine.run AS r WHERE r.run_id = x.run_id)"""

_DELETE_INCIDENTS = text(
    f"""
    DELETE FROM saga_engine.incident AS i USING (
        SELECT x.run_id, x.number FROM saga_engine.incident AS x
        WHERE {_IN_DROPPED_MONTH} LIMIT :page) AS old
    WHERE i.run_id = old.run_id AND i.number = old.number"""  # noqa: S608 - a constant
)

# Returns one row for each deleted request. The action of an operator gets its outcome with it.
_DELETE_REQUESTS = text(
    f"""
    WITH deleted AS (
        DELETE FROM saga_engine.pending_request WHERE id = ANY (ARRAY(
            SELECT x.id FROM saga_engine.pending_request AS x
            WHERE x.kind <> 'start' AND {_IN_DROPPED_MONTH}
                AND NOT EXISTS (
                    SELECT FROM saga_engine.pending_request AS s
                    WHERE s.run_id = x.run_id AND s.kind = 'start')
            LIMIT :page FOR UPDATE OF x SKIP LOCKED))
        RETURNING audit_id
    ), resolved AS (
        UPDATE saga_engine.audit AS a SET outcome = 'refused',
            message = 'The run was finished, and was dropped with its month.'
        FROM deleted WHERE a.id = deleted.audit_id AND a.outcome IS NULL
    )
    SELECT audit_id FROM deleted"""  # noqa: S608 - a constant
)
