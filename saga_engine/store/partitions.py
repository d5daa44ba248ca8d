"""
Months of runs: made ahead of time, and dropped whole when nobody needs them any more.

Nothing deletes runs or events one by one. A month is dropped when every run that began in it is
finished and has been for the days of `retention_days`; its keys and incidents go before it. Runs
with ids of another making are in the default partition, which stays.
"""

from dataclasses import dataclass

from sqlalchemy import text

from saga_engine.store.database import Database, Transaction

MONTHS_AHEAD = 2
"""Partitions there are beyond this month's: a worker may be away for as long."""

_PAGE = 5000  # keys released in one transaction


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done: partitions made, and months dropped as `2026_11`."""

    made: int
    dropped: tuple[str, ...]


async def maintain(
    database: Database, *, retention_days: int, months_ahead: int = MONTHS_AHEAD
) -> Maintained:
    """
    Make the partitions of the coming months and drop the months that are over.

    Any number of workers may do it at once. A `retention_days` of 0 drops nothing.

    Raises:
        StoreUnavailable: the tables were busy; next time will do.
    """
    async with database.transaction() as tx:
        await tx.execute(_IMPATIENT)
        made: int = (await tx.execute(_ADD, {"months_ahead": months_ahead})).scalar_one()
    if retention_days == 0:
        return Maintained(made, ())
    async with database.transaction() as tx:
        months = list((await tx.execute(_PAST, {"days": retention_days})).scalars())
    dropped = [month for month in months if await _drop(database, month, retention_days)]
    return Maintained(made, tuple(dropped))


async def _drop(database: Database, month: str, retention_days: int) -> bool:
    async with database.transaction() as tx:
        if await _needed(tx, month, retention_days):
            return False
    after: str | None = "00000000-0000-0000-0000-000000000000"
    while after is not None:
        async with database.transaction() as tx:
            after = await _release(tx, month, after)
    async with database.transaction() as tx:
        await tx.execute(_IMPATIENT)
        await tx.execute(text(f"LOCK TABLE saga_engine.run_{month} IN ACCESS EXCLUSIVE MODE"))
        if await _needed(tx, month, retention_days):
            return False
        for statement in _LEFTOVERS:
            await tx.execute(text(statement.format(month=month)))
    return True


async def _needed(tx: Transaction, month: str, retention_days: int) -> bool:
    """Whether a run of that month is unfinished, or was finished too recently."""
    statement = text(_NEEDED.format(month=month))
    return bool((await tx.execute(statement, {"days": retention_days})).scalar_one())


async def _release(tx: Transaction, month: str, after: str) -> str | None:
    """Release one page of keys; the last run id of the page, None when there was no page."""
    statement = text(_RELEASE.format(month=month))
    found = await tx.execute(statement, {"after": after, "page": _PAGE})
    last: str | None = found.scalar_one_or_none()
    return last


# Whoever waits for these locks holds up all who come after. Better to give up and come back.
_IMPATIENT = text("SET LOCAL lock_timeout = '500ms'")

_ADD = text("SELECT saga_engine.add_partitions(CAST(:months_ahead AS integer))")

# The names are ours, so they need no quotes below; the suffix is checked all the same.
_PAST = text(
    """
    SELECT month FROM (
        SELECT substr(c.relname, 5) AS month
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'saga_engine.run'::regclass
            AND c.relname ~ '^run_[0-9]{4}_[0-9]{2}$') AS months
    WHERE to_date(month, 'YYYY_MM') + interval '1 month'
        < clock_timestamp() AT TIME ZONE 'UTC' - make_interval(days => CAST(:days AS integer))
    ORDER BY month"""
)

_NEEDED = """
    SELECT EXISTS (
        SELECT FROM saga_engine.run_{month} WHERE status IN ('running', 'compensating'))
    OR EXISTS (
        SELECT FROM saga_engine.run_{month}
        WHERE finished_at
            > (SELECT clock_timestamp()) - make_interval(days => CAST(:days AS integer)))"""

_RELEASE = """
    WITH page AS MATERIALIZED (
        SELECT r.run_id, d.name, r.key
        FROM saga_engine.run_{month} AS r
        JOIN saga_engine.definition AS d ON d.id = r.definition_id
        WHERE r.run_id > CAST(:after AS uuid) ORDER BY r.run_id LIMIT :page
    ), released AS (
        DELETE FROM saga_engine.run_key AS k USING page
        WHERE k.saga = page.name AND k.key = page.key AND k.run_id = page.run_id
    )
    SELECT run_id::text FROM page ORDER BY run_id DESC LIMIT 1"""

_LEFTOVERS = (
    """
    DELETE FROM saga_engine.incident
    WHERE run_id >= saga_engine.month_bound(to_date('{month}', 'YYYY_MM'))
        AND run_id < saga_engine.month_bound(to_date('{month}', 'YYYY_MM') + interval '1 month')""",
    """
    DELETE FROM saga_engine.inbox
    WHERE run_id >= saga_engine.month_bound(to_date('{month}', 'YYYY_MM'))
        AND run_id < saga_engine.month_bound(to_date('{month}', 'YYYY_MM') + interval '1 month')""",
    "DROP TABLE saga_engine.event_{month}",
    "DROP TABLE saga_engine.run_{month}",
)
