"""
What holds the horizon back: the transaction that announced the lowest positions.

Projections and feeds wait for it, so its session is what an operator looks for.
"""

from dataclasses import dataclass

from saga_engine.postgres.statement import Transaction, text


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonHold:
    """
    A transaction that has appended and is open.

    Args:
        pid: of its session; None: it is a prepared transaction.
        application: `application_name` of its session; of a prepared transaction, its name.
        state: of its session, `idle in transaction` for example; None: this role may not see it.
    """

    pid: int | None
    application: str
    state: str | None


async def find_hold(tx: Transaction, position: int) -> HorizonHold | None:
    """
    Find the transaction that holds the horizon at a position.

    Args:
        tx: on the primary.
        position: the horizon, from an earlier statement.

    Returns:
        One of the transactions that announced this position; None: none does any more.
    """
    row = (await tx.execute(_HOLD, {"position": position})).first()
    return None if row is None else HorizonHold(pid=row[0], application=row[1], state=row[2])


# The key of the lock is made in migrations/events/0001_event_tables.py. A prepared transaction has
# no session; the lock of its transaction id leads to its name.
_HOLD = text(
    """
    SELECT l.pid, coalesce(s.application_name, p.gid, ''), s.state
    FROM pg_locks AS l
    LEFT JOIN pg_stat_activity AS s ON s.pid = l.pid
    LEFT JOIN pg_locks AS x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
        AND x.virtualtransaction = l.virtualtransaction
    LEFT JOIN pg_prepared_xacts AS p ON p.transaction = x.transactionid
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.classid::bigint >> 16 = 23147
        AND ((l.classid::bigint & 65535) << 32) | l.objid::bigint = :position
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY s.xact_start, l.pid, p.gid LIMIT 1"""
)
