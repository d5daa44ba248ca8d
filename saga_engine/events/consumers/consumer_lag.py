"""The table `consumer_lag`: what waits for each partition of a consumer, as it was measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from saga_engine.events.consumers.consumer_table import PartitionKey
from saga_engine.events.consumers.interfaces import SourceLag
from saga_engine.postgres.statement import Transaction, text


@dataclass(frozen=True, slots=True)
class StoredLag:
    """
    What waits for a partition.

    Args:
        messages: how many, when they were counted; None: they were not.
        seconds: for how long the first of them has been waiting; it grows while no process
            measures. None: it is not known.
        measured_at: when they were counted.
    """

    messages: int | None = None
    seconds: float | None = None
    measured_at: datetime | None = None


async def register(tx: Transaction, name: str) -> None:
    """Make a row for each partition of a consumer that has none."""
    await tx.execute(_REGISTER, {"name": name})


async def save(tx: Transaction, measured: Mapping[PartitionKey, SourceLag]) -> None:
    """Save what was measured; one that is not known keeps what was measured before."""
    if not measured:
        return
    parameters = {
        "consumers": [each.consumer for each in measured],
        "partitions": [each.partition for each in measured],
        "messages": [each.messages for each in measured.values()],
        "seconds": [each.seconds for each in measured.values()],
    }
    await tx.execute(_SAVE, parameters)


async def read(tx: Transaction, name: str | None = None) -> Mapping[PartitionKey, StoredLag]:
    """Read what waits for all consumers, or for one."""
    return {
        PartitionKey(row.consumer, row.partition): StoredLag(
            row.messages, row.seconds, row.measured_at
        )
        for row in await tx.execute(_READ, {"name": name})
    }


_REGISTER = text(
    """
    INSERT INTO saga_engine.consumer_lag (consumer, partition)
    SELECT name, partition FROM saga_engine.consumer AS c WHERE name = :name AND NOT EXISTS (
        SELECT FROM saga_engine.consumer_lag AS l
        WHERE l.consumer = c.name AND l.partition = c.partition)
    ORDER BY partition ON CONFLICT DO NOTHING"""
)
# In the order of the keys: other processes save theirs at the same time.
_SAVE = text(
    """
    WITH measured AS (
        SELECT * FROM unnest(
            CAST(:consumers AS text[]), CAST(:partitions AS integer[]),
            CAST(:messages AS bigint[]), CAST(:seconds AS float8[])
        ) AS m(consumer, partition, messages, seconds)
    ), locked AS (
        SELECT l.consumer, l.partition, m.messages, m.seconds
        FROM saga_engine.consumer_lag AS l JOIN measured AS m USING (consumer, partition)
        ORDER BY l.consumer, l.partition FOR UPDATE OF l
    )
    UPDATE saga_engine.consumer_lag AS l
    SET messages = locked.messages, seconds = locked.seconds, measured_at = clock_timestamp()
    FROM locked WHERE l.consumer = locked.consumer AND l.partition = locked.partition"""
)
_READ = text(
    """
    SELECT consumer, partition, messages, measured_at,
        CASE WHEN messages = 0 THEN seconds
            ELSE seconds + CAST(extract(epoch FROM clock_timestamp() - measured_at) AS float8)
        END AS seconds
    FROM saga_engine.consumer_lag
    WHERE CAST(:name AS text) IS NULL OR consumer = :name"""
)
