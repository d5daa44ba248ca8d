"""
What an operator does with a feed: retry, discard, rewind.

Who did it and why is recorded. An action only changes what is stored: the process that runs the
feed, or the next one, goes on from there.
"""

from saga_engine.errors import Conflict, NotFound
from saga_engine.events.feeds import feed_failures, feed_table
from saga_engine.events.feeds.feed_failures import Resolution
from saga_engine.events.feeds.feed_table import FeedKey, FeedState, Sink, StoredFeed
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import Action, Operator, Subject, SubjectKind
from saga_engine.postgres.statement import Transaction


async def retry(tx: Transaction, name: str, operator: Operator) -> int:
    """
    Publish the event again at which a feed is stopped, and go on.

    Returns:
        The position of the event.

    Raises:
        NotFound: there is no such feed.
        Conflict: no event of it has failed.
    """
    found = await _lock(tx, name)
    failure = await feed_failures.read_open(tx, _key(found))
    if failure is None:
        raise Conflict(f"Feed {name!r} is {found.state}; no event of it has failed.")
    await feed_failures.resolve(tx, _key(found), Resolution.RETRIED, operator)
    await feed_table.set_state(tx, _key(found), FeedState.ACTIVE, found.position)
    await operator_audit.record(tx, audited(name), Action.RETRY, operator, failure.position)
    return failure.position


async def discard(tx: Transaction, name: str, position: int, operator: Operator) -> None:
    """
    Go on without the event at which a feed is stopped; only `rewind` publishes it.

    Args:
        tx: a transaction.
        name: the feed.
        position: of the event, as its failure has it.
        operator: with a reason.

    Raises:
        NotFound: there is no such feed, or it is not stopped at that event.
        Conflict: there is no reason.
    """
    if not operator.reason.strip():
        raise Conflict("Consumers do not receive a discarded event. Give the reason to discard it.")
    found = await _lock(tx, name)
    failure = await feed_failures.read_open(tx, _key(found))
    if failure is None or failure.position != position:
        raise NotFound(f"Feed {name!r} has no failure at position {position}.")
    await feed_failures.resolve(tx, _key(found), Resolution.DISCARDED, operator)
    await feed_table.set_state(tx, _key(found), FeedState.ACTIVE, position)
    await operator_audit.record(tx, audited(name), Action.DISCARD, operator, position)


async def rewind(tx: Transaction, name: str, position: int, operator: Operator) -> None:
    """
    Let a feed publish again what comes after a position, with the same ids.

    Raises:
        NotFound: there is no such feed.
        Conflict: it has not come so far, or is stopped.
    """
    found = await _lock(tx, name)
    if found.state is FeedState.STOPPED:
        raise Conflict(f"Feed {name!r} is stopped. Retry or discard its event first.")
    if not 0 <= position <= found.position:
        raise Conflict(
            f"Feed {name!r} is at position {found.position}. Give an earlier one, from 0."
        )
    await feed_table.set_state(tx, _key(found), FeedState.ACTIVE, position)
    await feed_table.forget_missing(tx, _key(found))
    await operator_audit.record(tx, audited(name), Action.REWIND, operator, position)


def audited(name: str) -> Subject:
    """Return a feed as the subject of actions."""
    return Subject(SubjectKind.FEED, name)


async def _lock(tx: Transaction, name: str) -> StoredFeed:
    if not await feed_table.lock(tx, FeedKey(name, Sink.EXCHANGE)):
        raise not_found(name)
    (found,) = await feed_table.read(tx, name)
    return found


def _key(feed: StoredFeed) -> FeedKey:
    return FeedKey(feed.name, feed.sink)


def not_found(name: str) -> NotFound:
    """Make the error for a feed that the database does not have."""
    return NotFound(
        f"There is no feed {name!r}. `saga-engine feeds list` shows those that were registered."
    )
