"""`saga-engine streams`: the events of one stream."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from cyclopts import App, Parameter

from saga_engine.cli.event_output import data_text, event_json
from saga_engine.cli.output import AsJson, print_json, print_table
from saga_engine.cli.paging import (
    Page,
    check_limit,
    option_words,
    page_json,
    print_page_summary,
)
from saga_engine.errors import ConfigurationError, NotFound
from saga_engine.events.client import Events
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.settings import Settings

app = App(name="streams", help="Read the events of a stream.", version_flags=())

LIMIT_MAX = 1000
"""Events in one page."""
TABLE_COLUMNS = ("version", "position", "at", "event", "schema", "data")


@app.command
async def read(
    stream: str,
    /,
    *,
    limit: Annotated[int, Parameter(help="How many, at most 1000.")] = 100,
    after: Annotated[int, Parameter(help="The last version of the previous page.")] = 0,
    as_json: AsJson = False,
) -> None:
    """
    Print the events of a stream, the oldest first.

    Args:
        stream: Its name: AGGREGATE-ID, or run-RUN for a run.
    """
    check_limit(limit, LIMIT_MAX)
    if after < 0:
        raise ConfigurationError("--after is a version of the stream, or 0.")
    async with Events(settings=Settings.load()) as events:
        page = await _read_page(events.read(stream, after=after), limit)
    if not page.rows and after == 0:
        raise NotFound(
            f"There is no stream {stream!r} in this database, or it has no events."
            " `saga-engine tail --from 1` shows the events of all streams."
        )
    cursor = page.rows[-1].version if page.rows else None
    if as_json:
        events_json = [event_json(each) for each in page.rows]
        print_json({"stream": stream, "events": events_json, **page_json(page, cursor)})
        return
    print_table(TABLE_COLUMNS, [_table_row(each) for each in page.rows], empty="No more events.")
    options = option_words({"--limit": limit})
    print_page_summary(page, "events", ["streams", "read", stream, *options], cursor)


async def _read_page(events: AsyncIterator[Recorded], limit: int) -> Page[Recorded]:
    """Read *limit* events, and the others of the last version: the next page is after a version."""
    rows: list[Recorded] = []
    async for event in events:
        if len(rows) >= limit and event.version != rows[-1].version:
            return Page(rows, None, has_more=True)
        rows.append(event)
    return Page(rows, None, has_more=False)


def _table_row(event: Recorded) -> Sequence[object]:
    return (
        event.version,
        event.position,
        event.recorded_at,
        event.type,
        event.schema_version,
        data_text(event),
    )
