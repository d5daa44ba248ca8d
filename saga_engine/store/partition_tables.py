"""
The partitioned tables in PostgreSQL: the statements with which `partitions` maintains them.

Statements that lock a table have a short timeout, see `partitions`.
"""

from collections.abc import Sequence
from datetime import datetime

from saga_engine.postgres.statement import Transaction, text
from saga_engine.store import journal_readers
from saga_engine.store.journal_readers import JournalReader, ReaderKind

_RANGES_PER_TRANSACTION = 256
"""
Ranges of a BRIN index that one transaction summarizes: 256 MB of the table, which PostgreSQL reads
in less than a second.
"""


class SqlPartitionTables:
    """The `partitions.PartitionTables` of a transaction of PostgreSQL."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def count_missing_partitions(self, months_ahead: int) -> int:
        counted = await self._tx.execute(_COUNT_MISSING, {"months_ahead": months_ahead})
        missing: int = counted.scalar_one()
        return missing

    async def add_partitions(self, months_ahead: int) -> int:
        added = await self._tx.execute(_ADD_PARTITIONS, {"months_ahead": months_ahead})
        return int(added.scalar_one())

    async def expiry_cutoff(self, retention_days: int) -> datetime:
        read = await self._tx.execute(_CUTOFF, {"days": retention_days})
        cutoff: datetime = read.scalar_one()
        return cutoff

    async def expired_months(self, cutoff: datetime) -> list[str]:
        return list((await self._tx.execute(_EXPIRED_MONTHS, {"cutoff": cutoff})).scalars())

    async def month_needed(self, month: str, cutoff: datetime) -> bool:
        read = await self._tx.execute(_MONTH_NEEDED, {"month": month, "cutoff": cutoff})
        return bool(read.scalar_one())

    async def summarize_finished_index(self, month: str, first_page: int) -> int | None:
        arguments = {"month": month, "first": first_page, "ranges": _RANGES_PER_TRANSACTION}
        next_page: int | None = (await self._tx.execute(_SUMMARIZE, arguments)).scalar_one()
        return next_page

    async def release_keys(
        self, month: str, after_run_id: str, cutoff: datetime, limit: int
    ) -> str | None:
        statement = text(_RELEASE_KEYS.format(month=month))
        arguments = {"after": after_run_id, "page": limit, "cutoff": cutoff}
        last_run_id: str | None = (
            await self._tx.execute(statement, arguments)
        ).scalar_one_or_none()
        return last_run_id

    async def set_lock_timeout(self, seconds: float) -> None:
        await self._tx.execute(_SET_LOCK_TIMEOUT, {"timeout": f"{seconds * 1000:.0f}"})

    async def detach_month(self, month: str, cutoff: datetime) -> int:
        detached = await self._tx.execute(_DETACH_MONTH, {"month": month, "cutoff": cutoff})
        return int(detached.scalar_one())

    async def readers_behind(self, month: str) -> Sequence[JournalReader]:
        return await journal_readers.find_behind(self._tx, month)

    async def pass_over_readers(self, month: str) -> Sequence[JournalReader]:
        return await journal_readers.pass_over(self._tx, month)

    async def incomplete_readers(self) -> Sequence[tuple[ReaderKind, str]]:
        return await journal_readers.incomplete(self._tx)

    async def detached_months(self) -> list[str]:
        return list((await self._tx.execute(_DETACHED_MONTHS)).scalars())

    async def delete_incidents(self, month: str, limit: int) -> int:
        return (await self._tx.execute(_DELETE_INCIDENTS, {"month": month, "page": limit})).rowcount

    async def delete_requests(self, month: str, limit: int) -> int:
        return (await self._tx.execute(_DELETE_REQUESTS, {"month": month, "page": limit})).rowcount

    async def drop_month(self, month: str) -> None:
        await self._tx.execute(text(_DROP_MONTH.format(month=month)))


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

_DROP_MONTH = "DROP TABLE saga_engine.journal_{month}, saga_engine.run_{month}"

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
