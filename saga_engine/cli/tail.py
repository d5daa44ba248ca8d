"""`saga-engine tail`: the events of all streams, as they are appended."""

import asyncio
import sys
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from saga_engine.cli.event_output import data_text, event_json
from saga_engine.cli.graceful_shutdown import run_until_signaled
from saga_engine.cli.output import AsJson, format_cell, print_json, print_line, print_stderr
from saga_engine.cli.paging import command_line, option_words
from saga_engine.cli.standard_streams import is_output_lost
from saga_engine.errors import ConfigurationError, StoreUnavailable
from saga_engine.events.client import Events
from saga_engine.events.event_store.arguments import MAX_POSITION
from saga_engine.events.event_store.log_page import LogFilter
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.settings import Settings
from saga_engine.waiting import wait_for_event

WAITING = "Events are printed as they are appended, until Ctrl-C. With --from 1 all are printed."
COLUMNS = ("position", "at", "stream", "version", "event", "data")


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class TailFilterOptions:
    """Selects events by stream, type and correlation id; an option may be repeated."""

    stream: Annotated[
        tuple[str, ...],
        Parameter(help="Only this stream, or order-* for all orders.", json_list=False),
    ] = ()
    type_: Annotated[
        tuple[str, ...],
        Parameter(name="--type", help="Only events of this type.", json_list=False),
    ] = ()
    correlation: Annotated[str | None, Parameter(help="Only events with this correlation id.")] = (
        None
    )

    @property
    def words(self) -> list[str]:
        """The options for a command line."""
        repeated = [("--stream", self.stream), ("--type", self.type_)]
        return [
            *(word for name, values in repeated for value in values for word in (name, value)),
            *option_words({"--correlation": self.correlation}),
        ]


NO_TAIL_FILTER = TailFilterOptions()


async def tail(
    *,
    tail_filter: TailFilterOptions = NO_TAIL_FILTER,
    from_: Annotated[
        int | None,
        Parameter(name="--from", help="The first position; 1: all events. By default new events."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Print the events of all streams as they are appended, until a signal.

    The first SIGINT or SIGTERM ends it with exit code 0. With --json each line is a document.
    """
    if from_ is not None and not 1 <= from_ <= MAX_POSITION:
        raise ConfigurationError(f"--from is a position, from 1 to {MAX_POSITION}.")
    LogFilter.create(tail_filter.type_, tail_filter.stream)  # or only the first event reports it
    printer = EventPrinter(as_json=as_json)
    settings = Settings.load()
    async with Events(settings=settings) as events:
        follower = Follower(events, tail_filter, printer, settings.event_poll_interval_max)
        follower.position = await events.position() if from_ is None else from_ - 1
        if from_ is None:
            print_stderr(WAITING)
        try:
            await run_until_signaled(follower.run)
        except StoreUnavailable:
            options = [*tail_filter.words, *option_words({"--json": as_json})]
            print_stderr(
                "To continue, when the database is available: "
                + command_line("tail", "--from", str(follower.position + 1), *options)
            )
            raise


class EventPrinter:
    """Prints one event after the other."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._separator = "  " if sys.stdout.isatty() else "\t"

    def print_header(self) -> None:
        """Print the names of the columns, unless the events are documents."""
        if not self._as_json:
            print_line(self._separator.join(COLUMNS))

    def print_event(self, event: Recorded) -> None:
        """Print one event."""
        if self._as_json:
            print_json({"event": event_json(event)})
            return
        cells = (
            *(event.position, event.recorded_at, event.stream, event.version, event.type),
            data_text(event),
        )
        print_line(self._separator.join(map(format_cell, cells)))


class Follower:
    """
    Reads the log from a position on, and waits for new events at its end.

    `position` is the last position that was read.

    Args:
        events: reads them.
        tail_filter: which events.
        printer: prints them.
        poll_interval: seconds between two looks for new events.
    """

    def __init__(
        self,
        events: Events,
        tail_filter: TailFilterOptions,
        printer: EventPrinter,
        poll_interval: float,
    ) -> None:
        self.position = 0
        self._events = events
        self._types = tail_filter.type_ or None
        self._streams = tail_filter.stream or None
        self._correlation = tail_filter.correlation
        self._printer = printer
        self._poll_interval = poll_interval

    async def run(self, stop: asyncio.Event) -> None:
        """Print events until *stop* is set, or the output is lost."""
        self._printer.print_header()
        while not stop.is_set() and not is_output_lost():
            horizon = await self._events.position()
            if horizon > self.position:
                await self._print_new(stop)
                if not stop.is_set():
                    self.position = max(self.position, horizon)
            sys.stdout.flush()
            await wait_for_event(stop, self._poll_interval)

    async def _print_new(self, stop: asyncio.Event) -> None:
        async for event in self._events.read_all(
            after=self.position, types=self._types, streams=self._streams
        ):
            if self._correlation in (None, event.correlation_id):
                self._printer.print_event(event)
            self.position = event.position
            if stop.is_set() or is_output_lost():
                return
