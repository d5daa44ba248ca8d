"""
The model of the event tables: streams, positions and the horizon, checkpoints, projected tables.

The journals of runs are streams, too. It is a `FeedTransaction`, with what appends and
`projection_model` need. As in PostgreSQL, a transaction announces a position below all that it
draws, and its end removes that; a rollback leaves a gap.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import Table

from saga_engine.errors import WrongVersion
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter, LogPage
from saga_engine.events.event_store.recorded import EventData, Recorded
from saga_engine.events.feeds.feed_table import FeedKey, Progress
from saga_engine.events.projections.change import ChangeKind
from saga_engine.events.projections.change_batch import SLOT_KINDS, ChangeBatch, RowChange, Slot
from saga_engine.settings import Settings
from simulation.memory_database import MemoryTransaction
from simulation.rows import Row, stored_events_of

_COLUMNS = (
    *("stream", "version", "place", "position", "recorded_at", "type", "schema_version", "data"),
)
NEW_READER: Row = {"position": 0, "owner": None, "leased_until": None, "active": True, "skipped": 0}


class EventModel(MemoryTransaction):
    """A FeedTransaction in memory."""

    # streams

    async def read_stream(
        self, log: EventLog, stream: str, after: int = 0, settings: Settings | None = None
    ) -> list[Recorded]:
        """Read the events of a stream after a version."""
        del settings
        async with self.statement():
            rows = [
                row
                for _, row in self.scan("stream_event")
                if row["stream"] == stream and row["version"] > after
            ]
        return [_recorded(log, row) for row in sorted(rows, key=lambda row: row["version"])]

    async def append(self, stream: str, expected: int, events: Sequence[EventData]) -> None:
        """
        Append after the version that a stream must have; wait for who appends to it.

        Raises:
            WrongVersion: it has another one. Nothing was appended.
        """
        async with self.statement():
            if expected and self.get("stream_event", (stream, expected)) is None:
                raise WrongVersion(stream, expected, 0)
            for number, event in enumerate(events, expected + 1):
                row = {
                    "stream": stream,
                    "version": number,
                    "place": 0,
                    "position": self.draw_position(),
                    "recorded_at": self.now,
                    "type": event.type,
                    "schema_version": event.schema_version,
                    "data": orjson.dumps(event.data).decode(),
                }
                if not await self.insert("stream_event", (stream, number), row):
                    raise WrongVersion(stream, expected, number)

    async def horizon(self) -> int:
        async with self.statement():
            return self.current_horizon()

    async def read_page(
        self,
        log: EventLog,
        log_filter: LogFilter,
        bounds: tuple[int, int],
        settings: Settings,
        max_events: int,
    ) -> LogPage:
        after, last = bounds
        async with self.statement():
            until = min(last, self.current_horizon(), after + settings.event_window)
            logged = [row for _, row in self.scan("stream_event")]
            logged += [event for _, row in self.scan("journal") for event in events_of_run(row)]
        rows = [
            row for row in logged if after < row["position"] <= until and _accepts(log_filter, row)
        ]
        rows.sort(key=lambda row: row["position"])
        events = [_recorded(log, row) for row in rows[:max_events]]
        if len(rows) > max_events:
            return LogPage(events, events[-1].position)
        return LogPage(events, max(after, until))

    # checkpoints

    async def acquire_reader(self, table: str, name: str, owner: str, lease: float) -> int | None:
        """Take or renew the lease of a feed or a projection; None: another process has it."""
        async with self.statement():
            row = await self.lock(table, name) or NEW_READER
            is_free = row["owner"] in (None, owner) or row["leased_until"] < self.now
            if not (row["active"] and is_free):
                return None
            self.put(table, name, {**row, **self.lease(owner, lease)})
            position: int = row["position"]
            return position

    async def acquire_feed(self, key: FeedKey, owner: str, lease: float) -> int | None:
        return await self.acquire_reader("feed", key.name, owner, lease)

    async def save_feed(self, key: FeedKey, progress: Progress, owner: str, lease: float) -> bool:
        async with self.statement():
            row = await self.lock("feed", key.name) or NEW_READER
            if (row["active"], row["position"], row["owner"]) != (True, progress.after, owner):
                return False
            saved = {"position": progress.position, "skipped": row["skipped"] + progress.skipped}
            self.put("feed", key.name, {**row, **saved, **self.lease(owner, lease)})
            return True

    async def save_feed_differences(self, key: FeedKey, differences: tuple[str, ...]) -> None:
        """The exchange has none."""

    async def stop_feed(self, key: FeedKey, event: Recorded, problem: str) -> None:
        del problem
        async with self.statement():
            row = await self.lock("feed", key.name)
            stopped = {"position": event.position - 1, "active": False, "owner": None}
            self.put("feed", key.name, {**(row or NEW_READER), **stopped})

    # projected tables

    async def write_changes(self, batch: ChangeBatch, tables: Sequence[Table]) -> None:
        """Write folded changes, a statement for each table and kind of change."""
        for slot in Slot:
            for table in tables:
                if changes := batch.rows(table, slot):
                    async with self.statement():
                        for key, change in changes.items():
                            await self._change(table, SLOT_KINDS[slot], key, change)

    async def _change(
        self, table: Table, kind: ChangeKind, key: tuple[Any, ...], change: RowChange
    ) -> None:
        row = await self.lock(table.name, key)
        if kind is ChangeKind.INSERT:
            await self.insert_or_fail(table.name, key, {**change.put, **change.add})
        elif kind is ChangeKind.DELETE:
            self.delete(table.name, key)
        elif row is not None or kind is ChangeKind.UPSERT:
            before = row or {}
            added = {name: before.get(name, 0) + value for name, value in change.add.items()}
            self.put(table.name, key, {**before, **change.put, **added})

    def lease(self, owner: str, seconds: float) -> Row:
        """Return the columns of a lease that begins now."""
        return {"owner": owner, "leased_until": self.now + timedelta(seconds=seconds)}


def events_of_run(row: Row) -> Iterator[Row]:
    """The events of a row of the journal, as rows of the stream of the run."""
    for place, event in enumerate(stored_events_of(row)):
        yield {
            "stream": f"run-{row['run_id']}",
            "version": row["revision"],
            "place": place,
            "position": event.position,
            "recorded_at": row["recorded_at"],
            "type": event.type,
            "schema_version": 1,
            "data": orjson.dumps(event.data).decode(),
        }


def _recorded(log: EventLog, row: Row) -> Recorded:
    return log.recorded((*(row[each] for each in _COLUMNS), "{}"))


def _accepts(log_filter: LogFilter, row: Row) -> bool:
    assert log_filter.streams is None, "patterns of streams are not modelled"
    return log_filter.types is None or row["type"] in log_filter.types
