"""Rows of the model of PostgreSQL, and what its statements do with them."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import orjson

from saga_engine.postgres.statement import Columns
from saga_engine.store.journal import StoredEvent, stored_events
from saga_engine.vocabulary import Status

Row: TypeAlias = dict[str, Any]


RowRef: TypeAlias = tuple[str, Any]
"""The table and the key of a row."""


UNFINISHED = (Status.RUNNING.value, Status.COMPENSATING.value)
"""The statuses of runs that are not finished."""


def jsonb(text: str) -> str:
    """Normalize JSON as jsonb does: the keys of objects are returned in another order."""
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()


def rows_of(columns: Columns) -> Iterator[Row]:
    """Turn columns into rows."""
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def stored_events_of(row: Row) -> Iterator[StoredEvent]:
    """Read the events of a row of the journal."""
    return stored_events(row["revision"], row["recorded_at"], row["position"], row["events"])


def limit_bytes(rows: Iterable[Row], column: str, max_bytes: int) -> Iterator[Row]:
    """Omit the rows after `max_bytes` bytes of a column."""
    before = 0
    for row in rows:
        if before < max_bytes:
            yield row
        before += len(row[column].encode())


def oldest_age(now: datetime, times: Sequence[datetime]) -> float:
    """The age of the oldest in seconds; 0 if there is none."""
    return (now - min(times)).total_seconds() if times else 0.0
