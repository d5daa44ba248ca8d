"""
Pages of all events of a database, in the order of their positions.

A page ends at the horizon at the latest, so no later page has an event that this one should have.
It has the events of streams and, in the engine's database, those of runs. It covers a limited
range of positions: a filter that accepts few events does not make one statement
read the whole table.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from saga_engine.errors import InvalidInput, StoreUnavailable
from saga_engine.events.event_store import positions, run_journal, stream_table
from saga_engine.events.event_store.append import RUN_PREFIX
from saga_engine.events.event_store.arguments import require_instance
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.event_types import EVENT_NAME_RULE, event_type_of, is_event_name
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.payload.payload import is_storable, type_name
from saga_engine.postgres.statement import Transaction
from saga_engine.settings import Settings
from saga_engine.store.event_data import EVENT_TYPES

_ANY_CHARACTERS = "*"
_HYPHEN = "-"
_LIKE_SPECIAL = str.maketrans({each: f"\\{each}" for each in "\\%_"})


@dataclass(frozen=True, slots=True)
class LogFilter:
    """
    Which events a reader wants.

    Args:
        types: names of event types; None: all.
        streams: patterns of SQL's LIKE for names of streams; None: all.
    """

    types: Sequence[str] | None = None
    streams: Sequence[str] | None = None

    @property
    def reads_runs(self) -> bool:
        """Whether it can accept an event of a run, in the engine's database."""
        if self.types is not None and EVENT_TYPES.keys().isdisjoint(self.types):
            return False
        prefixes = ["%"] if self.streams is None else self.streams
        return any(
            each.startswith(RUN_PREFIX) or (each[-1:] == "%" and RUN_PREFIX.startswith(each[:-1]))
            for each in prefixes
        )

    @classmethod
    def create(cls, types: Collection[str | type] | None, streams: Collection[str] | None) -> Self:
        """
        Make a filter.

        Args:
            types: names of event types, or their classes; None: all.
            streams: names of streams, or `order-*` for all that begin with `order-`; None: all.

        Raises:
            InvalidInput: what was given is not a collection, or no event or stream can have such a
                name.
        """
        for given, name in ((types, "types"), (streams, "streams")):
            if isinstance(given, str):
                raise InvalidInput(f"{name} is one text. Give a collection of names: [{given!r}].")
            if given is not None:
                require_instance(given, Collection, name, "Give a collection, such as a list.")
        return cls(
            None if types is None else sorted(map(_type_name, types)),
            None if streams is None else sorted(map(_like_pattern, streams)),
        )


@dataclass(frozen=True, slots=True)
class LogPage:
    """
    Some events in the order of their positions.

    Args:
        events: those that the filter accepts.
        position: everything up to it was read: the position to continue after.
    """

    events: Sequence[Recorded]
    position: int


async def read_page(
    tx: Transaction,
    log: EventLog,
    log_filter: LogFilter,
    bounds: tuple[int, int],
    settings: Settings,
    max_events: int | None = None,
) -> LogPage:
    """
    Read the next page.

    Args:
        tx: at READ COMMITTED.
        log: of that database.
        log_filter: which events.
        bounds: continue after the first position; the second one is the last to read. Nothing is
            read beyond the horizon now: an earlier one may be of a primary that has failed, and
            this one has not seen all of its positions.
        settings: how much is read at once.
        max_events: how many events at most; None: the setting event_batch_size.

    Raises:
        StoreUnavailable: the position to continue after was never drawn in this database.
    """
    max_events = max_events or settings.event_batch_size
    after, last = bounds
    until = min(last, await positions.horizon(tx), after + settings.event_window)
    if until <= after:
        await _check_drawn(tx, after)
        return LogPage((), after)
    parameters = {
        "after": after,
        "until": until,
        "types": log_filter.types,
        "streams": log_filter.streams,
        "max_events": max_events,
        "max_bytes": settings.event_batch_bytes,
    }
    events, position = await stream_table.read_range(tx, log, parameters)
    if log.has_journal:
        of_runs, position_of_runs = await run_journal.read_range(tx, log, parameters)
        position = min(position, position_of_runs)
        events = [each for each in (*events, *of_runs) if each.position <= position]
        events.sort(key=lambda event: event.position)
    if len(events) > max_events:
        events = events[:max_events]
        position = events[-1].position
    return LogPage(events, position)


async def read_stream(
    tx: Transaction, log: EventLog, stream: str, after: int, settings: Settings
) -> list[Recorded]:
    """Read the next events of a stream, or of a run, after a version; none if there are none."""
    read = run_journal.read if run_journal.is_run(stream) else stream_table.read
    return await read(tx, log, stream, after, settings)


async def _check_drawn(tx: Transaction, position: int) -> None:
    last_position = await positions.last_drawn(tx)
    if position > last_position:
        problem = positions.lost_position(position, last_position)
        raise StoreUnavailable(f"Events cannot be read: {problem}.")


def _type_name(given: str | type) -> str:
    event_type = event_type_of(given)
    if event_type is not None:
        return event_type.name
    if isinstance(given, type):
        raise InvalidInput(
            f"{type_name(given)} is not the class of an event. Import the module that declares it,"
            " or give the name of the event."
        )
    if not is_event_name(given):
        raise InvalidInput(f"{given!r:.80} is not the name of an event. {EVENT_NAME_RULE}")
    return given


def _like_pattern(name: str) -> str:
    given: object = name
    if not isinstance(given, str) or not is_storable(name):
        raise InvalidInput(f"{name!r:.80} is not a pattern of streams. Write order-o-1 as a text.")
    prefix = name.removesuffix(_ANY_CHARACTERS)
    is_pattern = prefix != name
    if not name or _ANY_CHARACTERS in prefix or not (is_pattern or _HYPHEN in name):
        raise InvalidInput(f"{name!r} is not a pattern of streams. Write order-o-1, or order-*.")
    return prefix.translate(_LIKE_SPECIAL) + ("%" if is_pattern else "")
