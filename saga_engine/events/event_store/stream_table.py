"""
The table of streams, `stream_event`: appending to streams, and reading one.

Its primary key, (stream, version), decides between two appends to one stream. An append waits for
another one that is not committed yet.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from saga_engine.errors import StoreLockTimeout, WrongVersion
from saga_engine.events.event_store.append import Appended, NewEvent
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.expected_version import StreamState
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.postgres.sqlalchemy_errors import sqlstate_of
from saga_engine.postgres.statement import Rows, Transaction, text
from saga_engine.settings import Settings

_QUEUE_KEY = 23148
"""First half of the keys of advisory locks in which appends to a stream queue; no other has it."""

_STATE_CODES = {StreamState.NEW: 0, StreamState.ANY: -1, StreamState.EXISTING: -2}
"""How a statement reads an expected state, among versions."""


_LOCK_NOT_AVAILABLE = "55P03"


class ConcurrentAppend(Exception):
    """Another transaction has appended to a stream since the statement began: roll back, retry."""


async def queue(tx: Transaction, streams: Collection[str]) -> None:
    """
    Wait for one's turn among the appends to *streams* that were too late before.

    A retry begins with this, before it reads a stream. Otherwise all that wait for one append try
    again at once, and all but one of them are too late again. First attempts do not queue: most
    streams have one writer at a time, and a lock costs a round trip.
    """
    await tx.execute(_QUEUE, {"key": _QUEUE_KEY, "streams": [*streams]})


async def append(
    tx: Transaction, events: Sequence[NewEvent], metadata: str, settings: Settings
) -> Appended:
    """
    Append checked events, in order. If it raises, the caller rolls back what was appended.

    Args:
        tx: at READ COMMITTED. At a higher level a conflict raises SerializationFailure.
        events: with at least one event.
        metadata: JSON, of all events.
        settings: how much one statement appends.

    Raises:
        WrongVersion: a stream is not as expected.
        ConcurrentAppend: another transaction was first, and a retry will know what it did.
    """
    versions: dict[str, int] = {}
    last: Any = None
    for batch in _batches(events, settings):
        expected = {
            event.stream: versions.get(event.stream, _version_code(event)) for event in batch
        }
        counts = Counter[str]()
        numbers = []
        for event in batch:
            counts[event.stream] += 1
            numbers.append(counts[event.stream])
        rows = await _execute_append(
            tx,
            {
                "expected_stream": [*expected],
                "expected_version": [*expected.values()],
                "stream": [event.stream for event in batch],
                "number": numbers,
                "type": [event.type for event in batch],
                "schema_version": [event.schema_version for event in batch],
                "fingerprint": [event.fingerprint for event in batch],
                "data": [event.data for event in batch],
                "metadata": metadata,
            },
        )
        last = _check_appended(rows.all(), batch, versions)
    return Appended(last.position, versions, last.recorded_at)


async def _execute_append(tx: Transaction, parameters: Mapping[str, Any]) -> Rows:
    try:
        return await tx.execute(_APPEND, parameters)
    except Exception as error:
        if sqlstate_of(error) != _LOCK_NOT_AVAILABLE:
            raise
        streams = parameters["expected_stream"]
        others = f" or {len(streams) - 1} others" if len(streams) > 1 else ""
        raise StoreLockTimeout(
            f"Another transaction that appends to stream {streams[0]!r}{others}, or locks its"
            " table, did not end in time. Nothing was appended. End that transaction, or try again."
        ) from error


def _check_appended(
    rows: Sequence[Any], batch: Sequence[NewEvent], versions: dict[str, int]
) -> Any:
    """Set the versions of the streams of a batch, and return the row of its last event."""
    expected = {event.stream: event.expected for event in batch}
    for row in rows:
        if not row.is_expected:
            raise WrongVersion(row.stream, expected[row.stream], row.actual)
    if sum(row.appended for row in rows) != len(batch):
        raise ConcurrentAppend
    versions.update({row.stream: row.actual + row.appended for row in rows})
    return max(rows, key=lambda row: row.position)


def _version_code(event: NewEvent) -> int:
    expected = event.expected
    return _STATE_CODES[expected] if isinstance(expected, StreamState) else expected


def _batches(events: Sequence[NewEvent], settings: Settings) -> Iterator[list[NewEvent]]:
    batch: list[NewEvent] = []
    size = 0
    for event in events:
        full = len(batch) == settings.event_batch_size
        if batch and (full or size + event.size > settings.event_batch_bytes):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += event.size
    yield batch


async def read(
    tx: Transaction, log: EventLog, stream: str, after: int, settings: Settings
) -> list[Recorded]:
    """Read the next events of a stream after a version, in order; none if there are none."""
    events, _ = await read_page(tx, log, stream, after, settings)
    return events


async def read_page(
    tx: Transaction, log: EventLog, stream: str, after: int, settings: Settings
) -> tuple[list[Recorded], bool]:
    """Read as `read` does, and report whether the stream had no events after these."""
    parameters = {
        "stream": stream,
        "after": after,
        "max_events": settings.event_batch_size,
        "max_bytes": settings.event_batch_bytes,
    }
    rows = (await tx.execute(_READ, parameters)).all()
    events = [log.recorded(row) for row in rows]
    found = rows[0][-1] if rows else 0
    return events, len(rows) == found < settings.event_batch_size


async def read_range(
    tx: Transaction, log: EventLog, parameters: Mapping[str, Any]
) -> tuple[list[Recorded], int]:
    """
    Read the events of all streams in a range of positions, in order.

    Args:
        tx: at READ COMMITTED.
        log: of that database.
        parameters: `after` and `until` are the range; `types`, `streams`, `max_events` and
            `max_bytes` limit what is read of it, see `log_page`.

    Returns:
        The events, and up to which position everything was read.
    """
    rows = (await tx.execute(_READ_RANGE, parameters)).all()
    events = [log.recorded(row) for row in rows]
    found = rows[0][-1] if rows else 0
    is_complete = len(rows) == found < parameters["max_events"]
    return events, parameters["until"] if is_complete else events[-1].position


# It reads the streams first, and appends nothing if one is not as expected: -1 expects nothing, -2
# an event. ON CONFLICT, because an error would end the caller's transaction; the number of rows
# reveals the conflict. Positions are drawn by the column's default, in the order of the rows.
_APPEND = text(
    """
    WITH expected AS MATERIALIZED (
        SELECT e.stream, e.version AS expected, coalesce((
            SELECT s.version FROM saga_engine.stream_event AS s
            WHERE s.stream = e.stream ORDER BY s.version DESC LIMIT 1), 0) AS actual
        FROM unnest(CAST(:expected_stream AS text[]), CAST(:expected_version AS integer[]))
            AS e(stream, version)
    ), checked AS MATERIALIZED (
        SELECT stream, actual, CASE expected WHEN -1 THEN true WHEN -2 THEN actual > 0
            ELSE actual = expected END AS is_expected
        FROM expected
    ), appended AS (
        INSERT INTO saga_engine.stream_event
            (stream, version, type, schema_version, data, metadata)
        SELECT n.stream, c.actual + n.number, n.type, n.schema_version, n.data::json,
            CASE WHEN s.id IS NULL THEN CAST(:metadata AS jsonb)
                ELSE CAST(:metadata AS jsonb) || jsonb_build_object('schema_id', s.id) END
        FROM unnest(CAST(:stream AS text[]), CAST(:number AS integer[]), CAST(:type AS text[]),
            CAST(:schema_version AS integer[]), CAST(:fingerprint AS text[]),
            CAST(:data AS text[])) WITH ORDINALITY
            AS n(stream, number, type, schema_version, fingerprint, data, place)
        JOIN checked AS c ON c.stream = n.stream
        LEFT JOIN saga_engine.schema AS s ON s.subject = n.type
            AND s.version = n.schema_version AND s.fingerprint = n.fingerprint
        WHERE (SELECT bool_and(is_expected) FROM checked)
        ORDER BY n.place
        ON CONFLICT (stream, version) DO NOTHING
        RETURNING stream, position, recorded_at
    )
    SELECT c.stream, c.actual, c.is_expected, count(a.stream) AS appended,
        max(a.position) AS position,
        (array_agg(a.recorded_at ORDER BY a.position DESC))[1] AS recorded_at
    FROM checked AS c LEFT JOIN appended AS a ON a.stream = c.stream
    GROUP BY c.stream, c.actual, c.is_expected"""
)

# In one order of all streams, so that no two wait for each other.
_QUEUE = text(
    """
    SELECT pg_advisory_xact_lock(CAST(:key AS integer), hash)
    FROM (
        SELECT DISTINCT hashtext(stream) AS hash FROM unnest(CAST(:streams AS text[])) AS s(stream)
        ORDER BY hash) AS hashes"""
)

_READ = text(
    """
    SELECT stream, version, place, position, recorded_at, type, schema_version, data, metadata,
        found
    FROM (
        SELECT e.*, sum(octet_length(data)) OVER (ORDER BY version) - octet_length(data) AS before,
            count(*) OVER () AS found
        FROM (
            SELECT stream, version, 0 AS place, position, recorded_at, type, schema_version,
                data::text AS data, metadata::text AS metadata
            FROM saga_engine.stream_event
            WHERE stream = :stream AND version > :after
            ORDER BY version LIMIT :max_events) AS e) AS page
    WHERE before < :max_bytes ORDER BY version"""
)

# `found` is how many events there are before the limit of bytes.
_READ_RANGE = text(
    """
    SELECT stream, version, place, position, recorded_at, type, schema_version, data, metadata,
        found
    FROM (
        SELECT e.*, count(*) OVER () AS found,
            sum(octet_length(data)) OVER (ORDER BY position) - octet_length(data) AS before
        FROM (
            SELECT stream, version, 0 AS place, position, recorded_at, type, schema_version,
                data::text AS data, metadata::text AS metadata
            FROM saga_engine.stream_event
            WHERE position > :after AND position <= :until
                AND (CAST(:types AS text[]) IS NULL OR type = ANY (CAST(:types AS text[])))
                AND (CAST(:streams AS text[]) IS NULL
                    OR stream LIKE ANY (CAST(:streams AS text[])))
            ORDER BY position LIMIT :max_events) AS e) AS page
    WHERE before < :max_bytes ORDER BY position"""
)
