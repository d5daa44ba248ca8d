"""
The table `consumer`: how far each partition of a consumer is, and which process consumes it.

It is in the database of the effects. A batch locks its row, so a process that was stopped for
longer than its lease writes nothing when another one has taken over.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from saga_engine.events.consumers.interfaces import StartPoint
from saga_engine.postgres.statement import Transaction, text


class ConsumerState(StrEnum):
    """What a partition of a consumer does, as it is stored."""

    ACTIVE = "active"  # it is consumed, while a process runs the consumer
    PAUSED = "paused"  # an operator has paused it
    STOPPED = "stopped"  # an event could not be applied


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """
    One partition of a consumer.

    Args:
        consumer: its name.
        partition: from 0; a queue has only that one.
    """

    consumer: str
    partition: int

    @property
    def parameters(self) -> dict[str, object]:
        """Return it as parameters of a statement."""
        return {"name": self.consumer, "partition": self.partition}


@dataclass(frozen=True, slots=True)
class Holder:
    """
    A process that may have the lease of a partition.

    Args:
        owner: its name.
        source: what it consumes, see StoredPartition: it has the lease while that is stored.
    """

    owner: str
    source: str

    @property
    def parameters(self) -> dict[str, object]:
        """Return it as parameters of a statement."""
        return {"owner": self.owner, "source": self.source}


@dataclass(frozen=True, slots=True)
class Lease:
    """
    A partition that this process consumes.

    Args:
        start: the first offset that was not consumed, and the message before it.
        acquired_at: when it was taken or renewed, on the clock of the database.
    """

    start: StartPoint
    acquired_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """
    What a batch has done.

    Args:
        next_offset: the first offset after it; None: as before.
        last_message: the fingerprint of the message before that.
        applied: how many events a function was called for.
        duplicates: how many events were consumed before.
    """

    next_offset: int | None = None
    last_message: UUID | None = None
    applied: int = 0
    duplicates: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPartition:
    """
    One partition of a consumer as it is stored.

    Args:
        name: of the consumer.
        partition: from 0.
        source: what it consumes, `queue saga.consumer.billing`.
        state: see ConsumerState.
        next_offset: the first offset that was not consumed; None in a source without offsets.
        applied: how many events took effect.
        duplicates: how many events were received again.
        owner: the process that consumes it; None when no lease is in force.
        updated_at: when a batch or its state was last saved.
    """

    name: str
    partition: int
    source: str
    state: ConsumerState
    next_offset: int | None
    applied: int
    duplicates: int
    owner: str | None
    updated_at: datetime

    @property
    def key(self) -> PartitionKey:
        """Return which one it is."""
        return PartitionKey(self.name, self.partition)


async def register(tx: Transaction, name: str, source: str, partitions: int) -> None:
    """
    Make a row for each partition that has none.

    A consumer whose source is another one than before begins at the beginning of that; events that
    it has consumed are known by their ids. Processes that consume the earlier source write nothing
    from then on.

    Args:
        tx: a transaction.
        name: the consumer.
        source: what it consumes.
        partitions: how many there are.
    """
    parameters = {"name": name, "source": source, "partitions": partitions}
    await tx.execute(_REGISTER, {**parameters, "may_change_source": True})


async def add(tx: Transaction, name: str, source: str, partitions: int) -> None:
    """
    Make a row for each partition that has none, if the consumer still has this source.

    A row that an earlier source with more partitions has left begins at the beginning, as in
    `register`, which has refused the new source while messages of the earlier one were kept.
    """
    parameters = {"name": name, "source": source, "partitions": partitions}
    await tx.execute(_REGISTER, {**parameters, "may_change_source": False})


async def acquire(tx: Transaction, key: PartitionKey, holder: Holder, lease: float) -> Lease | None:
    """
    Take or renew the lease of an active partition.

    Args:
        tx: a transaction.
        key: of a registered partition.
        holder: the process.
        lease: seconds that it lasts, on the clock of the database.

    Returns:
        None when it is not active, another process has it, or it is of another source by now.
    """
    parameters = {**key.parameters, **holder.parameters, "lease": lease}
    row = (await tx.execute(_ACQUIRE, parameters)).first()
    if row is None:
        return None
    last_message = None if row.last_message is None else UUID(row.last_message)
    return Lease(StartPoint(row.next_offset, last_message), row.acquired_at)


async def lock(tx: Transaction, key: PartitionKey, holder: Holder) -> bool:
    """
    Lock the row.

    Returns:
        False if it is not active or of another source, or the *holder* is not the last to have its
        lease.
    """
    parameters = {**key.parameters, **holder.parameters}
    return (await tx.execute(_LOCK, parameters)).first() is not None


async def save(
    tx: Transaction, key: PartitionKey, progress: Progress, owner: str, lease: float
) -> datetime:
    """Save what a batch of a locked partition has done, and renew the lease; return the time."""
    parameters = {
        **key.parameters,
        "next_offset": progress.next_offset,
        "last_message": None if progress.last_message is None else str(progress.last_message),
        "applied": progress.applied,
        "duplicates": progress.duplicates,
        "owner": owner,
        "lease": lease,
    }
    saved_at: datetime = (await tx.execute(_SAVE, parameters)).scalar_one()
    return saved_at


async def set_state(
    tx: Transaction, key: PartitionKey, state: ConsumerState, expected: Collection[ConsumerState]
) -> bool:
    """Change the state, and end the lease; False, and nothing changes, unless it is *expected*."""
    parameters = {**key.parameters, "state": state.value, "expected": [*map(str, expected)]}
    return (await tx.execute(_SET_STATE, parameters)).rowcount == 1


async def set_offset(tx: Transaction, key: PartitionKey, offset: int) -> None:
    """Let a partition continue at an offset, and end its lease."""
    await tx.execute(_SET_OFFSET, {**key.parameters, "offset": offset})


async def release(tx: Transaction, owner: str) -> None:
    """End the leases of a process, so that others need not wait for their end."""
    await tx.execute(_RELEASE, {"owner": owner})


async def lock_all(tx: Transaction, name: str) -> None:
    """Lock the rows of a consumer until the end of the transaction, in any state."""
    await tx.execute(_LOCK_ALL, {"name": name})


async def read(tx: Transaction, name: str | None = None) -> Sequence[StoredPartition]:
    """Read all partitions of all consumers, or of one, by name and partition."""
    return [
        StoredPartition(
            name=row.name,
            partition=row.partition,
            source=row.source,
            state=ConsumerState(row.state),
            next_offset=row.next_offset,
            applied=row.applied,
            duplicates=row.duplicates,
            owner=row.owner,
            updated_at=row.updated_at,
        )
        for row in await tx.execute(_READ, {"name": name})
    ]


_REGISTER = text(
    """
    INSERT INTO saga_engine.consumer AS stored (name, partition, source)
    SELECT :name, p.partition, :source
    FROM generate_series(0, CAST(:partitions AS integer) - 1) AS p(partition)
    WHERE CAST(:may_change_source AS boolean) OR EXISTS (
        SELECT FROM saga_engine.consumer
        WHERE name = :name AND partition = 0 AND source = :source)
    ORDER BY p.partition ON CONFLICT (name, partition) DO UPDATE
    SET source = excluded.source, next_offset = NULL, last_message = NULL, owner = NULL,
        leased_until = NULL, wanted_by = NULL, wanted_until = NULL
    WHERE stored.source <> excluded.source"""
)
_ACQUIRE = text(
    """
    UPDATE saga_engine.consumer
    SET owner = :owner,
        leased_until = clock_timestamp() + make_interval(secs => CAST(:lease AS float8))
    WHERE name = :name AND partition = :partition AND source = :source AND state = 'active'
        AND (owner IS NULL OR owner = :owner OR leased_until < clock_timestamp())
    RETURNING next_offset, last_message::text AS last_message, clock_timestamp() AS acquired_at"""
)
_LOCK = text(
    """
    SELECT FROM saga_engine.consumer
    WHERE name = :name AND partition = :partition AND source = :source AND state = 'active'
        AND owner = :owner
    FOR UPDATE"""
)
_SAVE = text(
    """
    UPDATE saga_engine.consumer
    SET next_offset = coalesce(CAST(:next_offset AS bigint), next_offset),
        last_message = coalesce(CAST(CAST(:last_message AS text) AS uuid), last_message),
        applied = applied + :applied, duplicates = duplicates + :duplicates,
        updated_at = clock_timestamp(), owner = :owner,
        leased_until = clock_timestamp() + make_interval(secs => CAST(:lease AS float8))
    WHERE name = :name AND partition = :partition
    RETURNING updated_at"""
)
_SET_STATE = text(
    """
    UPDATE saga_engine.consumer
    SET state = :state, owner = NULL, leased_until = NULL, updated_at = clock_timestamp()
    WHERE name = :name AND partition = :partition AND state = ANY(CAST(:expected AS text[]))"""
)
_SET_OFFSET = text(
    """
    UPDATE saga_engine.consumer
    SET next_offset = :offset, last_message = NULL, owner = NULL, leased_until = NULL,
        updated_at = clock_timestamp()
    WHERE name = :name AND partition = :partition"""
)
_RELEASE = text(
    """
    UPDATE saga_engine.consumer SET owner = NULL, leased_until = clock_timestamp()
    WHERE owner = :owner"""
)
_LOCK_ALL = text(
    "SELECT FROM saga_engine.consumer WHERE name = :name ORDER BY partition FOR UPDATE"
)
_READ = text(
    """
    SELECT name, partition, source, state, next_offset, applied, duplicates, updated_at,
        CASE WHEN leased_until >= clock_timestamp() THEN owner END AS owner
    FROM saga_engine.consumer
    WHERE CAST(:name AS text) IS NULL OR name = :name ORDER BY name, partition"""
)
