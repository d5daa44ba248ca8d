"""What the statements of backlog counts, crash suspects and retention mean in the model."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from saga_engine.store import (
    backlog_counts,
    crash_suspects,
    partitions,
    retention,
    stranded_starts,
)
from simulation.definition_model import definition_of
from simulation.memory_database import MemoryTransaction, StatementHandlers
from simulation.rows import UNFINISHED, Arguments, oldest_age

HANDLERS = StatementHandlers()


@HANDLERS.handles(crash_suspects, "_READ_ALL", "_READ_AMONG", "_READ_WITH_WORK")
async def _no_crash_suspects(_tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    return []


@HANDLERS.handles(backlog_counts, "_UNFINISHED")
async def _unfinished(tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    groups: dict[tuple[str, str], list[datetime]] = {}
    for _key, row in tx.scan("run"):
        if row["status"] in UNFINISHED:
            name = definition_of(tx, row["definition_id"])[0]
            groups.setdefault((name, row["status"]), []).append(row["started_at"])
    return [(*group, len(times), oldest_age(tx.now, times)) for group, times in groups.items()]


@HANDLERS.handles(backlog_counts, "_OPEN_INCIDENTS", "_DEAD_LETTERS")
async def _no_rows(_tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    return []


@HANDLERS.handles(backlog_counts, "_STARTS_WAITING")
async def _pending_starts_by_saga(tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    starts = Counter(row["saga"] for _, row in tx.scan("pending_request") if row["kind"] == "start")
    return list(starts.items())


@HANDLERS.handles(stranded_starts, "_COUNT")
async def _stranded_starts_by_saga(tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    alive = {
        (row["name"], row["version"], row["fingerprint"])
        for _, row in tx.scan("definition")
        if row["present_until"] > tx.now
    }
    starts = (row for _, row in tx.scan("pending_request") if row["kind"] == "start")
    stranded = Counter(
        row["saga"]
        for row in starts
        if row["fingerprint"] is not None
        and (row["saga"], row["version"], row["fingerprint"]) not in alive
    )
    return list(stranded.items())


@HANDLERS.handles(backlog_counts, "_TIMERS")
async def _due_timers(tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    times = [row["wake_at"] for _, row in tx.scan("run") if row["wake_at"] is not None]
    return [(len(times), max(0.0, oldest_age(tx.now, times)))]


@HANDLERS.handles(backlog_counts, "_PENDING_REQUESTS")
async def _pending_request_counts(tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    rows = [row for _, row in tx.scan("pending_request")]
    awaiting_definition = sum(row["definition_id"] is not None for row in rows)
    return [
        (len(rows), oldest_age(tx.now, [row["received_at"] for row in rows]), awaiting_definition)
    ]


@HANDLERS.handles(retention, "_PURGE_EXPIRED")
async def _purge_nothing(_tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    return [(0,)]


@HANDLERS.handles(backlog_counts, "_UNPARTITIONED")
@HANDLERS.handles(partitions, "_COUNT_MISSING")
async def _missing_partitions(_tx: MemoryTransaction, _: Arguments) -> Sequence[Any]:
    return [(0,)]
