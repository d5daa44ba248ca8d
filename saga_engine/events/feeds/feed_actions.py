"""
What an operator does with a feed: retry, discard, rewind.

Who did it and why is recorded. An action only changes what is stored: the process that runs the
feed, or the next one, goes on from there.
"""

from saga_engine.errors import Conflict, InvalidInput, NotFound
from saga_engine.events.feeds import feed_failures, feed_table, waiting_streams
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_failures import Resolution
from saga_engine.events.feeds.feed_table import FeedKey, FeedState, StoredFeed
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import Action, Operator, Subject, SubjectKind
from saga_engine.nearest_name import did_you_mean
from saga_engine.postgres.statement import Transaction


async def retry(tx: Transaction, key: FeedKey, operator: Operator) -> int:
    """
    Publish the event again at which a feed is stopped, or the events that streams wait for.

    Returns:
        The position of the event, of the first one if there are several.

    Raises:
        NotFound: there is no such feed.
        Conflict: no event of it has failed.
    """
    found = await _lock(tx, key)
    failure = await feed_failures.read_open(tx, key)
    positions = await waiting_streams.retry(tx, key)
    if failure:
        await feed_failures.resolve(tx, key, Resolution.RETRIED, operator)
        await feed_table.set_state(tx, key, FeedState.ACTIVE, found.position)
        positions = [failure.position, *positions]
    if not positions:
        raise Conflict(f"Feed {key} is {found.state}; no event of it has failed.")
    await operator_audit.record(tx, audited(key), Action.RETRY, operator, positions[0])
    return positions[0]


async def discard(tx: Transaction, key: FeedKey, position: int, operator: Operator) -> None:
    """
    Go on without an event at which a feed is stopped or a stream waits; only `rewind` publishes it.

    Args:
        tx: a transaction.
        key: the feed and its sink.
        position: of the event, as `feeds show` has it.
        operator: with a reason.

    Raises:
        NotFound: there is no such feed, or neither it nor a stream waits at that event.
        Conflict: there is no reason.
    """
    if not operator.reason.strip():
        raise Conflict("Consumers do not receive a discarded event. Give the reason to discard it.")
    await _lock(tx, key)
    failure = await feed_failures.read_open(tx, key)
    if failure and failure.position == position:
        await feed_failures.resolve(tx, key, Resolution.DISCARDED, operator)
        await feed_table.set_state(tx, key, FeedState.ACTIVE, position)
    elif not await waiting_streams.skip(tx, key, position):
        raise NotFound(f"Feed {key} has no failure at position {position}.")
    await operator_audit.record(tx, audited(key), Action.DISCARD, operator, position)


async def rewind(tx: Transaction, key: FeedKey, position: int, operator: Operator) -> None:
    """
    Let a feed publish again what comes after a position, with the same ids.

    Raises:
        NotFound: there is no such feed.
        Conflict: it has not come so far, or is stopped.
    """
    found = await _lock(tx, key)
    if found.state is FeedState.STOPPED:
        raise Conflict(f"Feed {key} is stopped. Retry or discard its event first.")
    if not 0 <= position <= found.position:
        raise Conflict(f"Feed {key} is at position {found.position}. Give an earlier one, from 0.")
    await feed_table.set_state(tx, key, FeedState.ACTIVE, position)
    await feed_table.note_rewind(tx, key)
    await waiting_streams.forget_after(tx, key, position)
    await operator_audit.record(tx, audited(key), Action.REWIND, operator, position)


def audited(key: FeedKey) -> Subject:
    """Return a feed as the subject of actions."""
    return Subject(SubjectKind.FEED, key.name, sink=key.sink.value)


async def find(tx: Transaction, name: str, sink: Sink | None = None) -> StoredFeed:
    """
    Find a feed by its name; one with several sinks needs the sink, too.

    Raises:
        NotFound: there is no such feed, or it has no such sink.
        InvalidInput: it has several sinks.
    """
    by_sink = {each.sink: each for each in await feed_table.read(tx, name)}
    if not by_sink:
        raise await not_found(tx, name)
    sinks = ", ".join(by_sink)
    if sink is None and len(by_sink) > 1:
        raise InvalidInput(f"Feed {name!r} has several sinks. Choose one with --sink: {sinks}.")
    found = by_sink.get(sink or next(iter(by_sink)))
    if found is None:
        raise NotFound(f"Feed {name!r} has no sink {sink!r}. It has: {sinks}.")
    return found


async def _lock(tx: Transaction, key: FeedKey) -> StoredFeed:
    if not await feed_table.lock(tx, key):
        raise await not_found(tx, key.name)
    return await find(tx, key.name, key.sink)


async def not_found(tx: Transaction, name: str) -> NotFound:
    """Make the error for a feed that the database does not have."""
    names = {each.name for each in await feed_table.read(tx)}
    return NotFound(
        f"There is no feed {name!r}.{did_you_mean(name, names)} `saga-engine feeds list` shows"
        " those that were registered."
    )
