"""
The table `feed_waiting_stream`: streams whose next event a webhook has not accepted.

The position of the feed is beyond such an event, so that other streams go on. The events of the
stream from `next_position` on are sent later, in their order. After `webhook_retry_timeout` the
event is a dead letter, and the stream waits for an operator.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.postgres.statement import Transaction, text

MAX_PROBLEM_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingStream:
    """
    A stream that waits.

    Args:
        stream: its name.
        next_position: its events from this position on are not delivered.
        next_version: none of these has a lower version.
        type: of the event that was refused.
        event_id: of that event.
        problem: why it was refused last, and the next action, in a sentence.
        attempts: how often it was sent, since it is the next one or was retried.
        failed_at: when it was refused last.
        retry_at: when it is sent again; None: it is a dead letter.
    """

    stream: str
    next_position: int
    next_version: int
    type: str
    event_id: UUID
    problem: str
    attempts: int
    failed_at: datetime
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class WaitingNumbers:
    """How many streams of a feed wait, and of these for an operator."""

    streams: int
    dead_letters: int


NONE_WAIT = WaitingNumbers(0, 0)


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    An event that was refused.

    Args:
        event: the event.
        problem: see WaitingStream.
        delay: seconds until it is sent again.
        timeout: seconds after its first refusal from which on it is a dead letter; 0: at once.
    """

    event: Recorded
    problem: str
    delay: float
    timeout: float

    @property
    def parameters(self) -> dict[str, object]:
        """Return it as parameters of a statement."""
        return {
            "stream": self.event.stream,
            "position": self.event.position,
            "version": self.event.version,
            "type": self.event.type,
            "event_id": str(self.event.id),
            "problem": self.problem[:MAX_PROBLEM_CHARACTERS],
            "delay": self.delay,
            "timeout": self.timeout,
        }


async def add(tx: Transaction, key: FeedKey, owner: str, refusal: Refusal) -> bool:
    """Let the stream of an event wait; False, and nothing is done, unless *owner* has the feed."""
    parameters = {**key.parameters, "owner": owner, **refusal.parameters}
    return (await tx.execute(_ADD, parameters)).rowcount == 1


async def load(tx: Transaction, key: FeedKey) -> list[str]:
    """Read the names of the streams that wait; at most `webhook_max_waiting_streams`."""
    return [row.stream for row in await tx.execute(_LOAD, key.parameters)]


async def due(tx: Transaction, key: FeedKey, owner: str, limit: int) -> list[WaitingStream]:
    """Read the streams that are to be sent now, the longest due first, if *owner* has the feed."""
    parameters = {**key.parameters, "owner": owner, "limit": limit}
    return [_waiting(row) for row in await tx.execute(_READ, parameters)]


async def fail(
    tx: Transaction, key: FeedKey, waiting: WaitingStream, refusal: Refusal
) -> bool | None:
    """
    Record that the next event, or a later one, of a waiting stream was refused.

    Returns:
        Whether it is a dead letter now; None, and nothing is stored, if an operator or another
        process has moved the stream.
    """
    parameters = {**key.parameters, "before": waiting.next_position, **refusal.parameters}
    is_dead: bool | None = (await tx.execute(_FAIL, parameters)).scalar()
    return is_dead


async def advance(
    tx: Transaction, key: FeedKey, waiting: WaitingStream, moved: WaitingStream
) -> bool:
    """Move on in a waiting stream to its next event; False if it was moved already."""
    parameters = {
        **key.parameters,
        "stream": waiting.stream,
        "before": waiting.next_position,
        "position": moved.next_position,
        "version": moved.next_version,
    }
    return (await tx.execute(_ADVANCE, parameters)).rowcount == 1


async def remove(tx: Transaction, key: FeedKey, waiting: WaitingStream) -> None:
    """Remove a stream whose events are delivered."""
    parameters = {"stream": waiting.stream, "before": waiting.next_position}
    await tx.execute(_REMOVE, {**key.parameters, **parameters})


async def retry(tx: Transaction, key: FeedKey) -> list[int]:
    """Let every waiting stream be sent now, dead letters too; return the positions."""
    return sorted(row.next_position for row in await tx.execute(_RETRY, key.parameters))


async def skip(tx: Transaction, key: FeedKey, position: int) -> bool:
    """Go on in a waiting stream without its next event; False if no such event waits."""
    parameters = {**key.parameters, "position": position}
    return (await tx.execute(_SKIP, parameters)).rowcount == 1


async def forget_after(tx: Transaction, key: FeedKey, position: int) -> None:
    """Forget the streams that wait for events after a position: the feed publishes these again."""
    await tx.execute(_FORGET_AFTER, {**key.parameters, "position": position})


async def read(tx: Transaction, key: FeedKey, limit: int) -> list[WaitingStream]:
    """Read the waiting streams of a feed, dead letters first."""
    parameters = {**key.parameters, "owner": None, "limit": limit}
    return [_waiting(row) for row in await tx.execute(_READ, parameters)]


async def read_numbers(tx: Transaction) -> dict[FeedKey, WaitingNumbers]:
    """Count the waiting streams of all feeds; a feed without one is left out."""
    return {
        FeedKey(row.feed, Sink(row.sink)): WaitingNumbers(row.streams, row.dead_letters)
        for row in await tx.execute(_READ_NUMBERS)
    }


def _waiting(row: Any) -> WaitingStream:
    return WaitingStream(
        stream=row.stream,
        next_position=row.next_position,
        next_version=row.next_version,
        type=row.type,
        event_id=UUID(row.event_id),
        problem=row.problem,
        attempts=row.attempts,
        failed_at=row.failed_at,
        retry_at=row.retry_at,
    )


_ADD = text(
    """
    INSERT INTO saga_engine.feed_waiting_stream (feed, sink, stream, next_position, next_version,
        type, event_id, problem, retry_at)
    SELECT name, sink, :stream, :position, :version, :type, CAST(:event_id AS uuid), :problem,
        CASE WHEN CAST(:timeout AS float8) > 0
            THEN clock_timestamp() + make_interval(secs => CAST(:delay AS float8)) END
    FROM saga_engine.feed
    WHERE name = :name AND sink = :sink AND owner = :owner AND state = 'active'
    ON CONFLICT (feed, sink, stream) DO UPDATE
    SET next_position = excluded.next_position, next_version = excluded.next_version,
        type = excluded.type, event_id = excluded.event_id, problem = excluded.problem,
        attempts = 1, first_failed_at = clock_timestamp(), failed_at = clock_timestamp(),
        retry_at = excluded.retry_at"""
)
_LOAD = text(
    "SELECT stream FROM saga_engine.feed_waiting_stream WHERE feed = :name AND sink = :sink"
)
_FAIL = text(
    """
    UPDATE saga_engine.feed_waiting_stream AS w
    SET next_position = :position, next_version = :version, type = :type,
        event_id = CAST(:event_id AS uuid), problem = :problem, failed_at = clock_timestamp(),
        attempts = CASE WHEN w.next_position = :position THEN w.attempts ELSE 0 END + 1,
        first_failed_at = CASE WHEN w.next_position = :position AND w.attempts > 0
            THEN w.first_failed_at ELSE clock_timestamp() END,
        retry_at = CASE
            WHEN CAST(:timeout AS float8) <= 0 THEN NULL
            WHEN w.next_position = :position AND w.attempts > 0 AND w.first_failed_at
                <= clock_timestamp() - make_interval(secs => CAST(:timeout AS float8)) THEN NULL
            ELSE clock_timestamp() + make_interval(secs => CAST(:delay AS float8)) END
    WHERE feed = :name AND sink = :sink AND stream = :stream AND next_position = :before
    RETURNING retry_at IS NULL"""
)
_ADVANCE = text(
    """
    UPDATE saga_engine.feed_waiting_stream
    SET next_position = :position, next_version = :version, attempts = 0
    WHERE feed = :name AND sink = :sink AND stream = :stream AND next_position = :before"""
)
_REMOVE = text(
    """
    DELETE FROM saga_engine.feed_waiting_stream
    WHERE feed = :name AND sink = :sink AND stream = :stream AND next_position = :before"""
)
_RETRY = text(
    """
    UPDATE saga_engine.feed_waiting_stream SET retry_at = clock_timestamp(), attempts = 0
    WHERE feed = :name AND sink = :sink RETURNING next_position"""
)
_SKIP = text(
    """
    UPDATE saga_engine.feed_waiting_stream
    SET next_position = next_position + 1, retry_at = clock_timestamp(), attempts = 0
    WHERE feed = :name AND sink = :sink AND next_position = :position"""
)
_FORGET_AFTER = text(
    """
    DELETE FROM saga_engine.feed_waiting_stream
    WHERE feed = :name AND sink = :sink AND next_position > :position"""
)
_READ = text(
    """
    SELECT w.stream, w.next_position, w.next_version, w.type, w.event_id::text AS event_id,
        w.problem, w.attempts, w.failed_at, w.retry_at
    FROM saga_engine.feed_waiting_stream AS w
    JOIN saga_engine.feed AS f ON f.name = w.feed AND f.sink = w.sink
    WHERE w.feed = :name AND w.sink = :sink
        AND (CAST(:owner AS text) IS NULL OR (
            w.retry_at <= clock_timestamp() AND f.owner = :owner AND f.state = 'active'
            AND f.leased_until >= clock_timestamp()))
    ORDER BY w.retry_at NULLS FIRST, w.next_position LIMIT :limit"""
)
_READ_NUMBERS = text(
    """
    SELECT feed, sink, count(*) AS streams, count(*) FILTER (WHERE retry_at IS NULL) AS dead_letters
    FROM saga_engine.feed_waiting_stream GROUP BY feed, sink"""
)
