"""
Whether the sequence of positions is ahead of every stored event and every checkpoint.

A restore or a replication that copies tables without the values of sequences leaves it behind.
Events that are appended then get positions that readers have passed, and no reader ever gets them.
"""

from collections.abc import Mapping

from saga_engine.errors import ConfigurationError
from saga_engine.postgres.statement import Statement, Transaction, text


async def require_ahead(tx: Transaction, address: str) -> None:
    """
    Check the sequence against each table that the database has and the role may read.

    Args:
        tx: at READ COMMITTED.
        address: of the database, for the message.

    Raises:
        ConfigurationError: a stored position is above the last one that was drawn.
    """
    readable = set((await tx.execute(_READABLE, {"names": [_SEQUENCE, *LAST_POSITIONS]})).scalars())
    if _SEQUENCE not in readable:
        return
    found = {
        table: (await tx.execute(statement)).scalar()
        for table, statement in LAST_POSITIONS.items()
        if table in readable
    }
    # After the tables: a position that is drawn in the meantime only raises it.
    last_drawn: int = (await tx.execute(_LAST_DRAWN)).scalar_one()
    table, last_stored = max(found.items(), key=lambda each: each[1] or 0, default=("", 0))
    if last_stored and last_stored > last_drawn:
        raise ConfigurationError(
            f"The database {address} has position {last_stored} in {table}, and its sequence has"
            f" drawn positions up to {last_drawn}: it was restored without the value of the"
            " sequence, and readers would miss new events. Before anything is appended, run"
            f" `SELECT setval('{_SEQUENCE}', {last_stored})` as the owner. docs/operations.md,"
            ' "Events that were lost", says what else to check.'
        )


_SEQUENCE = "saga_engine.event_position"

_READABLE = text(
    """
    SELECT name FROM unnest(CAST(:names AS text[])) AS name
    WHERE has_table_privilege(to_regclass(name), 'SELECT')"""
)

# The next one is drawn after it.
_LAST_DRAWN = text(
    """
    SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END
    FROM saga_engine.event_position"""
)

# A row of the journal has several events with consecutive positions.
LAST_POSITIONS: Mapping[str, Statement] = {
    "saga_engine.stream_event": text("SELECT max(position) FROM saga_engine.stream_event"),
    "saga_engine.journal": text(
        """
        SELECT position + jsonb_array_length(events) - 1
        FROM saga_engine.journal ORDER BY position DESC LIMIT 1"""
    ),
    "saga_engine.projection": text("SELECT max(position) FROM saga_engine.projection"),
    "saga_engine.feed": text("SELECT max(position) FROM saga_engine.feed"),
}
