"""
The leases in the tables of projections, feeds and consumers, for all of a process at once.

A process that should have more writes its name to the row, as `wanted_by`; the owner gives it the
lease when it has saved its position.
"""

from collections.abc import Collection

from saga_engine.events.readers.lease_share import Lease, LeaseKey
from saga_engine.postgres.statement import Transaction, text


class LeaseTable:
    """
    The leases in one table.

    Args:
        table: its name, with the schema.
        part: the second column of its key, after `name`.
    """

    def __init__(self, table: str, part: str) -> None:
        self._read = text(_READ.format(table=table, part=part))
        self._want = text(_WANT.format(table=table, part=part))
        self._hand_over = text(_HAND_OVER.format(table=table, part=part))

    async def read(self, tx: Transaction, keys: Collection[LeaseKey]) -> list[Lease]:
        """Read the leases of those that are active, by key."""
        return [
            Lease(
                key=(row.name, row.part),
                owner=row.owner,
                ends_in=row.ends_in,
                wanted_by=row.wanted_by,
            )
            for row in await tx.execute(self._read, _columns(keys))
        ]

    async def want(self, tx: Transaction, lease: Lease, process: str, seconds: float) -> None:
        """
        Want a lease for so many seconds, if its holder is the one that was read.

        It waits for the batch that has locked the row, so each is a transaction of its own.
        """
        parameters = {
            **_columns([lease.key]),
            "holder": lease.holder,
            "process": process,
            "seconds": seconds,
        }
        await tx.execute(self._want, parameters)

    async def hand_over(self, tx: Transaction, key: LeaseKey, process: str, lease: float) -> None:
        """Give the lease of a process to the one that wants it, for *lease* seconds."""
        parameters = {**_columns([key]), "process": process, "lease": lease}
        await tx.execute(self._hand_over, parameters)


def _columns(keys: Collection[LeaseKey]) -> dict[str, object]:
    return {"name": [name for name, _ in keys], "part": [part for _, part in keys]}


# A lease that was never taken, or that an operator's action has ended, has been free forever.
_READ = """
    SELECT k.name, k.part,
        CASE WHEN t.leased_until >= clock_timestamp() THEN t.owner END AS owner,
        CASE WHEN t.wanted_until >= clock_timestamp() THEN t.wanted_by END AS wanted_by,
        coalesce(extract(epoch FROM t.leased_until - clock_timestamp())::float8, '-Infinity')
            AS ends_in
    FROM unnest(CAST(:name AS text[]), CAST(:part AS text[])) AS k(name, part)
    JOIN {table} AS t ON t.name = k.name AND t.{part}::text = k.part
    WHERE t.state = 'active' ORDER BY k.name, k.part"""
_WANT = """
    UPDATE {table} AS t
    SET wanted_by = :process,
        wanted_until = clock_timestamp() + make_interval(secs => CAST(:seconds AS float8))
    FROM unnest(CAST(:name AS text[]), CAST(:part AS text[])) AS k(name, part)
    WHERE t.name = k.name AND t.{part}::text = k.part
        AND CAST(:holder AS text) = coalesce(
            CASE WHEN t.wanted_until >= clock_timestamp() THEN t.wanted_by END,
            CASE WHEN t.leased_until >= clock_timestamp() THEN t.owner END)"""
_HAND_OVER = """
    UPDATE {table} AS t
    SET owner = t.wanted_by, wanted_by = NULL, wanted_until = NULL,
        leased_until = clock_timestamp() + make_interval(secs => CAST(:lease AS float8))
    FROM unnest(CAST(:name AS text[]), CAST(:part AS text[])) AS k(name, part)
    WHERE t.name = k.name AND t.{part}::text = k.part
        AND t.owner = :process AND t.wanted_until >= clock_timestamp()"""

PROJECTION_LEASES = LeaseTable("saga_engine.projection", "version")
FEED_LEASES = LeaseTable("saga_engine.feed", "sink")
CONSUMER_LEASES = LeaseTable("saga_engine.consumer", "partition")
