"""
The name under which a feed publishes to a stream: what its publishing ids are counted by.

RabbitMQ drops a message whose publishing id is not above the last one of the same name. The id of
an event is its position, so the name changes whenever positions are given again to other events, or
events are to be published that have lower positions than others which were published:

- the database was promoted or recovered, and may have lost positions: its timeline;
- it was restored from a dump: another cluster, or another database in it;
- it is a copy of its files, in which fewer positions were drawn than RabbitMQ has ids;
- the feed selects other events now;
- an operator has rewound the feed.

The others that were published are then published again, with the ids that they had.
"""

from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from saga_engine.events.feeds.feed import Feed
from saga_engine.events.feeds.feed_rules import event_filter
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.postgres.statement import Transaction, text

_SELECTION_DIGITS = 8


@dataclass(frozen=True, slots=True)
class ProducerName:
    """
    The part of a name that does not change while a process runs.

    Args:
        key: the feed.
        log_id: the identity of the log.
        selection: which events it selects.
    """

    key: FeedKey
    log_id: UUID
    selection: str

    @classmethod
    def of(cls, feed: Feed, key: FeedKey, log_id: UUID) -> "ProducerName":
        """Make the name of a feed."""
        selected = event_filter(feed)
        names = [each and sorted(each) for each in (selected.types, selected.streams)]
        digest = sha256(repr(names).encode()).hexdigest()
        return cls(key, log_id, digest[:_SELECTION_DIGITS])

    async def read(self, tx: Transaction) -> tuple[str, int | None]:
        """
        Return the whole name, at most 200 characters, and the position of the feed with it.

        A name that is read after events were read, and has not changed, is right for them.

        Raises:
            StoreError: the database is unavailable, or does not let this role read its identity.
        """
        row = (await tx.execute(_READ, self.key.parameters)).one()
        identity = (row.cluster, row.database, row.timeline, row.rewinds)
        parts = (self.key.name, str(self.log_id), "-".join(map(str, identity)), self.selection)
        return ".".join(parts), row.position

    async def change(self, tx: Transaction) -> None:
        """Let the name be another one from now on, as after a rewind."""
        await tx.execute(_CHANGE, self.key.parameters)


_CHANGE = text(
    "UPDATE saga_engine.feed SET rewinds = rewinds + 1 WHERE name = :name AND sink = :sink"
)
# The functions are PUBLIC's, and pg_walfile_name has the timeline as it is: pg_control_checkpoint
# has that of the last checkpoint, which may be before a promotion.
_READ = text(
    """
    SELECT (SELECT system_identifier FROM pg_control_system()) AS cluster,
        (SELECT oid FROM pg_database WHERE datname = current_database()) AS database,
        left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline, f.rewinds, f.position
    FROM (SELECT) AS one
    LEFT JOIN saga_engine.feed f ON f.name = :name AND f.sink = :sink"""
)
