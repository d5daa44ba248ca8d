"""
The table `feed`: how far each feed is, and which process runs it.

A position is saved after the broker has confirmed the events up to it, and only by the owner that
has published from the position before it. A process that was stopped for longer than its lease
finds another owner when it goes on. It saves nothing, and stops no feed: the events that it has
published are repetitions, and that a queue was missing may be corrected since.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from saga_engine.events.feeds.confirmed_offsets import NO_OFFSETS, ConfirmedOffsets
from saga_engine.events.feeds.feed import Feed, Sink
from saga_engine.postgres.statement import Transaction, text


class FeedState(StrEnum):
    """What a feed does, as it is stored."""

    ACTIVE = "active"  # it follows the events, while a process runs it
    STOPPED = "stopped"  # an event could not be published


@dataclass(frozen=True, slots=True, order=True)
class FeedKey:
    """A feed and one of its sinks."""

    name: str
    sink: Sink

    @classmethod
    def of(cls, feed: Feed) -> "list[FeedKey]":
        """Return the keys of a feed: one for each of its sinks."""
        return [cls(feed.name, sink) for sink in feed.sinks]

    def __str__(self) -> str:
        return f"{self.name} ({self.sink.value})"

    @property
    def show_command(self) -> str:
        """The command that shows the event which has stopped it."""
        return f"saga-engine feeds show {self.name} --sink {self.sink.value}"

    @property
    def retry_command(self) -> str:
        """The command that publishes an event again which could not be published."""
        return f"saga-engine feeds retry {self.name} --sink {self.sink.value} --reason TEXT"

    @property
    def rewind_command(self) -> str:
        """The command that publishes every event again."""
        return f"saga-engine feeds rewind {self.name} --sink {self.sink.value} --to 0"

    @property
    def parameters(self) -> dict[str, object]:
        """Return it as parameters of a statement."""
        return {"name": self.name, "sink": self.sink.value}


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How far a feed has come.

    Args:
        after: the position that it has continued from.
        position: every event up to it was published, skipped or discarded.
        skipped: how many events between the two no queue was bound for.
        confirmed: what its destination has at least.
    """

    after: int
    position: int
    skipped: int = 0
    confirmed: ConfirmedOffsets = NO_OFFSETS


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFeed:
    """
    One feed as it is stored.

    Args:
        name: of the feed.
        sink: where its events go.
        state: see FeedState.
        position: every event up to it was published, skipped or discarded.
        skipped: how many events no queue was bound for, since the feed is there.
        owner: the process that runs it; None when no lease is in force.
        updated_at: when its position or its state was last saved.
        missing_until: the last position of the journals that retention has dropped before it has
            published them; None: it has missed nothing.
        differences: how its destination differs from what it declares, in sentences; as its owner
            has last found it.
    """

    name: str
    sink: Sink
    state: FeedState
    position: int
    skipped: int
    owner: str | None
    updated_at: datetime
    missing_until: int | None
    differences: tuple[str, ...] = ()

    @property
    def key(self) -> FeedKey:
        """What identifies it."""
        return FeedKey(self.name, self.sink)


async def register(
    tx: Transaction, keys: Sequence[FeedKey], reads_runs: Collection[FeedKey] = ()
) -> None:
    """
    Make a row, at position 0, for each feed that has none.

    Args:
        tx: a transaction.
        keys: the feeds.
        reads_runs: those of them that can publish events of runs; retention waits for them.
    """
    parameters = {
        "name": [each.name for each in keys],
        "sink": [each.sink.value for each in keys],
        "reads_runs": [each in reads_runs for each in keys],
    }
    await tx.execute(_REGISTER, parameters)


async def acquire(tx: Transaction, key: FeedKey, owner: str, lease: float) -> int | None:
    """
    Take or renew the lease of an active feed.

    Args:
        tx: a transaction.
        key: of a registered feed.
        owner: the process.
        lease: seconds that it lasts, on the clock of the database.

    Returns:
        The position to continue from; None when it is stopped or another process has it.
    """
    parameters = {**key.parameters, "owner": owner, "lease": lease}
    position: int | None = (await tx.execute(_ACQUIRE, parameters)).scalar()
    return position


async def save(tx: Transaction, key: FeedKey, progress: Progress, owner: str, lease: float) -> bool:
    """
    Save the position that a feed has reached, and renew its lease.

    Returns:
        False, and nothing is saved, if it is not active at `progress.after`, or *owner* is not the
        last to have taken its lease.
    """
    parameters = {
        **key.parameters,
        "after": progress.after,
        "position": progress.position,
        "skipped": progress.skipped,
        "confirmed_topic": progress.confirmed.topic,
        "confirmed_ends": list(progress.confirmed.ends),
        "owner": owner,
        "lease": lease,
    }
    return (await tx.execute(_SAVE, parameters)).rowcount == 1


async def read_confirmed(tx: Transaction, key: FeedKey) -> ConfirmedOffsets:
    """Read what the destination of a feed has at least; after an action nothing is known."""
    row = (await tx.execute(_READ_CONFIRMED, key.parameters)).one()
    return ConfirmedOffsets(row.confirmed_topic, tuple(row.confirmed_ends))


async def set_state(tx: Transaction, key: FeedKey, state: FeedState, position: int) -> None:
    """Set the state and the position of a feed, end its lease, and forget what was confirmed."""
    parameters = {**key.parameters, "state": state.value, "position": position}
    await tx.execute(_SET_STATE, parameters)


async def set_differences(tx: Transaction, key: FeedKey, differences: Sequence[str]) -> None:
    """Replace how the destination of a feed differs from what it declares."""
    await tx.execute(_SET_DIFFERENCES, {**key.parameters, "differences": list(differences)})


async def note_rewind(tx: Transaction, key: FeedKey) -> None:
    """Count a rewind, and forget that the feed has missed events: it publishes what is stored."""
    await tx.execute(_NOTE_REWIND, key.parameters)


async def release(tx: Transaction, owner: str) -> None:
    """End the leases of a process, so that others need not wait for their end."""
    await tx.execute(_RELEASE, {"owner": owner})


async def lock(tx: Transaction, key: FeedKey) -> bool:
    """Lock the row of a feed until the end of the transaction; False if there is none."""
    return (await tx.execute(_LOCK, key.parameters)).first() is not None


async def read(tx: Transaction, name: str | None = None) -> list[StoredFeed]:
    """Read all feeds, or those of one name, by name and sink."""
    return [
        StoredFeed(
            name=row.name,
            sink=Sink(row.sink),
            state=FeedState(row.state),
            position=row.position,
            skipped=row.skipped,
            owner=row.owner,
            updated_at=row.updated_at,
            missing_until=row.missing_until,
            differences=tuple(row.differences),
        )
        for row in await tx.execute(_READ, {"name": name})
    ]


_REGISTER = text(
    """
    INSERT INTO saga_engine.feed AS stored (name, sink, reads_runs)
    SELECT f.name, f.sink, f.reads_runs
    FROM unnest(CAST(:name AS text[]), CAST(:sink AS text[]), CAST(:reads_runs AS boolean[]))
        AS f(name, sink, reads_runs)
    ORDER BY f.name, f.sink ON CONFLICT (name, sink) DO UPDATE SET reads_runs = excluded.reads_runs
    WHERE stored.reads_runs <> excluded.reads_runs"""
)
_ACQUIRE = text(
    """
    UPDATE saga_engine.feed
    SET owner = :owner,
        leased_until = clock_timestamp() + make_interval(secs => CAST(:lease AS float8))
    WHERE name = :name AND sink = :sink AND state = 'active'
        AND (owner IS NULL OR owner = :owner OR leased_until < clock_timestamp())
    RETURNING position"""
)
_SAVE = text(
    """
    UPDATE saga_engine.feed
    SET position = :position, skipped = skipped + :skipped, updated_at = clock_timestamp(),
        confirmed_topic = :confirmed_topic,
        confirmed_ends = CAST(:confirmed_ends AS bigint[]),
        leased_until = clock_timestamp() + make_interval(secs => CAST(:lease AS float8))
    WHERE name = :name AND sink = :sink AND state = 'active' AND position = :after
        AND owner = :owner"""
)
_SET_STATE = text(
    """
    UPDATE saga_engine.feed
    SET state = :state, position = :position, owner = NULL, leased_until = NULL,
        updated_at = clock_timestamp(), confirmed_topic = DEFAULT, confirmed_ends = DEFAULT
    WHERE name = :name AND sink = :sink"""
)
_READ_CONFIRMED = text(
    """
    SELECT confirmed_topic, confirmed_ends FROM saga_engine.feed
    WHERE name = :name AND sink = :sink"""
)
_SET_DIFFERENCES = text(
    """
    UPDATE saga_engine.feed SET differences = CAST(:differences AS text[])
    WHERE name = :name AND sink = :sink AND differences <> CAST(:differences AS text[])"""
)
_NOTE_REWIND = text(
    """
    UPDATE saga_engine.feed SET missing_until = NULL, rewinds = rewinds + 1
    WHERE name = :name AND sink = :sink"""
)
_RELEASE = text(
    """
    UPDATE saga_engine.feed SET owner = NULL, leased_until = clock_timestamp()
    WHERE owner = :owner"""
)
_LOCK = text("SELECT FROM saga_engine.feed WHERE name = :name AND sink = :sink FOR UPDATE")
_READ = text(
    """
    SELECT name, sink, state, position, skipped, updated_at, missing_until, differences,
        CASE WHEN leased_until >= clock_timestamp() THEN owner END AS owner
    FROM saga_engine.feed
    WHERE CAST(:name AS text) IS NULL OR name = :name ORDER BY name, sink"""
)
