"""
The stream of one aggregate: its state from a snapshot and the events after it.

The event of the snapshot's version is read as well. If it does not exist, the stream was restored
or removed, and the snapshot is of another history.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from saga_engine.events.aggregates.aggregate import Aggregate
from saga_engine.events.aggregates.command_time_limit import CommandTimeLimit
from saga_engine.events.aggregates.folding import replay
from saga_engine.events.event_store import snapshot_table, stream_table
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.event_types import event_code_call
from saga_engine.events.event_store.recorded import Recorded, unreadable
from saga_engine.events.event_store.snapshot_table import StoredSnapshot
from saga_engine.payload.guard import UserCodeError, call_user_code
from saga_engine.payload.payload import PayloadError, type_name
from saga_engine.postgres.statement import Transaction
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedAggregate:
    """
    An aggregate as it is stored.

    Args:
        state: after its last event; the first state if it has none.
        version: of its last event; 0 if it has none.
        position: of its last event; 0 if it has none.
        snapshot_version: of the snapshot that was used; 0 if none was.
    """

    state: Any
    version: int = 0
    position: int = 0
    snapshot_version: int = 0


class LongReplay(Exception):
    """A stream has more events than one transaction replays; continue with `loaded`."""

    def __init__(self, loaded: LoadedAggregate) -> None:
        super().__init__()
        self.loaded = loaded


async def load(
    tx: Transaction,
    log: EventLog,
    aggregate: Aggregate,
    stream: str,
    settings: Settings,
    start: LoadedAggregate | None = None,
) -> LoadedAggregate:
    """
    Load an aggregate.

    Args:
        tx: at READ COMMITTED.
        log: of the database.
        aggregate: its declarations.
        stream: which one.
        settings: sizes of pages, and how many of them are replayed.
        start: what a LongReplay has; it is not changed. None: the snapshot, or the first state.

    Raises:
        LongReplay: not all of its events were replayed.
        UnreadableEvent: its code does not know an event of the stream, or cannot read or apply it.
    """
    time_limit = CommandTimeLimit(settings.mapping_timeout)
    is_complete = False
    if start is not None:
        loaded = replace(start, state=copy.deepcopy(start.state))
    elif found := await _load_snapshot(tx, log, aggregate, stream, settings, time_limit):
        loaded, is_complete = found
    else:
        loaded = LoadedAggregate(state=aggregate.state_class())
    for _ in range(settings.replay_pages):
        if is_complete:
            return loaded
        events, is_complete = await stream_table.read_page(
            tx, log, stream, loaded.version, settings
        )
        loaded = _add_events(aggregate, loaded, events, time_limit)
    if not is_complete:
        raise LongReplay(loaded)
    return loaded


async def write_snapshot(
    tx: Transaction, aggregate: Aggregate, stream: str, version: int, state: Json
) -> None:
    """
    Write the state of an aggregate, unless its code is unknown.

    Args:
        tx: a transaction.
        aggregate: its declarations.
        stream: which one.
        version: of the last event that the state includes.
        state: as JSON.
    """
    if aggregate.fingerprint is not None:
        snapshot = StoredSnapshot(version, state)
        await snapshot_table.write(tx, stream, aggregate.fingerprint, snapshot)


async def _load_snapshot(
    tx: Transaction,
    log: EventLog,
    aggregate: Aggregate,
    stream: str,
    settings: Settings,
    time_limit: CommandTimeLimit,
) -> tuple[LoadedAggregate, bool] | None:
    """Load a snapshot and the first events after it, and whether these are all; None without."""
    if aggregate.fingerprint is None:
        return None
    snapshot = await snapshot_table.read(tx, stream, aggregate.fingerprint)
    if snapshot is None:
        return None
    events, is_complete = await stream_table.read_page(
        tx, log, stream, snapshot.version - 1, settings
    )
    if not events or events[0].version != snapshot.version:
        return None
    try:
        call = event_code_call(type_name(aggregate.state_class), aggregate.source_location, "")
        with time_limit.interrupting():
            state = call_user_code(time_limit, call, aggregate.state_type.read, snapshot.state)
    except (PayloadError, UserCodeError):
        return None  # the replay reports what is wrong, if anything is
    loaded = LoadedAggregate(
        state=state,
        version=snapshot.version,
        position=events[0].position,
        snapshot_version=snapshot.version,
    )
    return _add_events(aggregate, loaded, events[1:], time_limit), is_complete


def _add_events(
    aggregate: Aggregate,
    loaded: LoadedAggregate,
    events: Sequence[Recorded],
    time_limit: CommandTimeLimit,
) -> LoadedAggregate:
    for expected, event in enumerate(events, loaded.version + 1):
        if event.version != expected:
            problem = f"the stream has no event {expected}, so its state is not known"
            raise unreadable(event, problem, "Restore the events that were removed.")
    if not events:
        return loaded
    with time_limit.interrupting():
        state = replay(aggregate, events, loaded.state, time_limit)
    return replace(
        loaded,
        state=state,
        version=events[-1].version,
        position=events[-1].position,
    )
