"""
What an operator does with a consumer: pause, resume, retry, skip, rewind.

Who did it and why is recorded. An action only changes what is stored: the process that runs the
consumer, or the next one, goes on from there.
"""

from collections.abc import Sequence
from uuid import UUID

from saga_engine.errors import Conflict, NotFound
from saga_engine.events.consumers import consumed_events, consumer_failures, consumer_table
from saga_engine.events.consumers.consumer_table import (
    ConsumerState,
    PartitionKey,
    StoredPartition,
)
from saga_engine.events.consumers.kept_messages import FailureKind
from saga_engine.events.event_store.arguments import MAX_POSITION, require_number
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import Action, Operator, Subject, SubjectKind
from saga_engine.postgres.statement import Transaction


async def pause(tx: Transaction, name: str, operator: Operator) -> None:
    """
    Pause the active partitions of a consumer, each before its next batch.

    Raises:
        NotFound: there is no such consumer.
        Conflict: no partition is active.
    """
    found = await _lock(tx, name)
    if not await _change(tx, found, ConsumerState.ACTIVE, ConsumerState.PAUSED):
        raise Conflict(
            f"Consumer {name!r} is {_states(found)}. It can be paused while it is active."
        )
    await operator_audit.record(tx, audited(name), Action.PAUSE, operator)


async def resume(tx: Transaction, name: str, operator: Operator) -> None:
    """
    Let the paused partitions of a consumer continue.

    Raises:
        NotFound: there is no such consumer.
        Conflict: no partition is paused.
    """
    found = await _lock(tx, name)
    if not await _change(tx, found, ConsumerState.PAUSED, ConsumerState.ACTIVE):
        raise Conflict(
            f"Consumer {name!r} is {_states(found)}. It can be resumed while it is paused."
        )
    await operator_audit.record(tx, audited(name), Action.RESUME, operator)


async def retry(tx: Transaction, name: str, operator: Operator) -> int:
    """
    Try all messages again that could not be applied or read.

    Returns:
        How many failures are tried again; messages that wait behind one of them come after it.

    Raises:
        NotFound: there is no such consumer.
        Conflict: nothing of it has failed.
    """
    found = await _lock(tx, name)
    failures, behind = await consumer_failures.request_retry(tx, name, operator)
    was_stopped = await _change(tx, found, ConsumerState.STOPPED, ConsumerState.ACTIVE)
    if not failures and not behind and not was_stopped:
        raise Conflict(f"Consumer {name!r} is {_states(found)}; no message of it has failed.")
    await consumer_failures.purge(tx, name)
    await operator_audit.record(tx, audited(name), Action.RETRY, operator)
    return failures


async def skip(tx: Transaction, name: str, failure_id: int, operator: Operator) -> None:
    """
    Go on without a message that could not be applied or read.

    Args:
        tx: a transaction.
        name: the consumer.
        failure_id: of the failure, as `consumers show` prints it.
        operator: with a reason.

    Raises:
        NotFound: there is no such consumer, or no such failure.
        Conflict: there is no reason.
        InvalidInput: it is not a number.
    """
    if not operator.reason.strip():
        raise Conflict("A skipped event never takes effect. Give the reason to skip it.")
    require_number(failure_id, "The id of the failure", MAX_POSITION)
    await _lock(tx, name)
    skipped = await consumer_failures.skip(tx, name, failure_id, operator)
    if skipped is None:
        raise NotFound(f"Consumer {name!r} has no failure {failure_id}.")
    kind, partition, event = skipped
    if kind is FailureKind.STOPPED:
        await _pass_over(tx, PartitionKey(name, partition), event)
    else:
        await consumer_failures.request_rest(tx, failure_id)
    await consumer_failures.purge(tx, name)
    await operator_audit.record(tx, audited(name), Action.SKIP, operator, failure_id)


async def rewind(
    tx: Transaction, name: str, partition: int, offset: int, operator: Operator
) -> None:
    """
    Let a partition continue at an offset. Events that are consumed again have no effect.

    Args:
        tx: a transaction.
        name: the consumer.
        partition: from 0.
        offset: of the source; an earlier one, or a later one that is still there.
        operator: who, and why.

    Raises:
        NotFound: there is no such consumer, or it has no such partition.
        Conflict: its source is a queue, which has no offsets.
        InvalidInput: it is not an offset.
    """
    require_number(offset, "The offset", MAX_POSITION)
    found = await _lock(tx, name)
    chosen = [each for each in found if each.partition == partition]
    if not chosen:
        raise NotFound(f"Consumer {name!r} has no partition {partition}; it has {len(found)}.")
    if chosen[0].source.startswith("queue "):
        raise Conflict(f"Consumer {name!r} reads a queue, which has no offsets. Rewind its feed.")
    await consumer_table.set_offset(tx, chosen[0].key, offset)
    await operator_audit.record(tx, audited(name), Action.REWIND, operator, offset)


async def _pass_over(tx: Transaction, key: PartitionKey, event: UUID) -> None:
    """Note an event as consumed, so that it has no effect when it is delivered again."""
    if not await consumed_events.known(tx, key.consumer, [event]):
        await consumed_events.insert(tx, key.consumer, [event])
    stopped = [ConsumerState.STOPPED]
    await consumer_table.set_state(tx, key, ConsumerState.ACTIVE, stopped)


def audited(name: str) -> Subject:
    """Return a consumer as the subject of actions."""
    return Subject(SubjectKind.CONSUMER, name)


async def find(tx: Transaction, name: str) -> Sequence[StoredPartition]:
    """
    Read the partitions of a consumer.

    Raises:
        NotFound: there is no such consumer.
    """
    found = await consumer_table.read(tx, name)
    if not found:
        raise NotFound(
            f"There is no consumer {name!r}. `saga-engine consumers list` shows those that have"
            " started and found their source."
        )
    return found


async def _lock(tx: Transaction, name: str) -> Sequence[StoredPartition]:
    await consumer_table.lock_all(tx, name)
    return await find(tx, name)


async def _change(
    tx: Transaction,
    found: Sequence[StoredPartition],
    expected: ConsumerState,
    state: ConsumerState,
) -> bool:
    """Change the state of the partitions that are *expected*; whether there is one."""
    changed = [await consumer_table.set_state(tx, each.key, state, [expected]) for each in found]
    return any(changed)


def _states(found: Sequence[StoredPartition]) -> str:
    return " and ".join(sorted({each.state for each in found}))
