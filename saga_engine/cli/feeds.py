"""`saga-engine feeds`: how far feeds are, and what an operator does with them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import App, Parameter

from saga_engine.cli.event_database import event_transaction
from saga_engine.cli.operator import Operator
from saga_engine.cli.operator_actions import (
    ACTION_LIMIT,
    Reason,
    acting_operator,
    print_actions,
)
from saga_engine.cli.output import (
    AsJson,
    print_done,
    print_fields,
    print_json,
    print_line,
    print_table,
)
from saga_engine.cli.reader_state import print_not_running, state_text
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.feeds import feed_actions, feed_failures, feed_table, waiting_streams
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_table import FeedKey, StoredFeed
from saga_engine.events.feeds.waiting_streams import NONE_WAIT, WaitingNumbers
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.lag import Lag, read_lags

app = App(name="feeds", help="List, show, retry, discard and rewind.", version_flags=())

ChosenSink = Annotated[
    Sink | None, Parameter(help="Of the feed; needed if it has several.", negative=())
]

TABLE_COLUMNS = (
    *("feed", "sink", "state", "position"),
    *("lag events", "lag s", "skipped", "waiting streams", "owner", "missing until"),
)

NO_FEED = "No projector has registered a feed. Start one: saga-engine projector MODULE"
MAX_SHOWN = 20
"""Of the streams that wait; the dead letters come first."""


@app.command(name="list")
async def list_feeds(*, as_json: AsJson = False) -> None:
    """List the feeds of a database."""
    async with event_transaction() as tx:
        _, lags = await read_lags(tx, await EventLog.load(tx), await feed_table.read(tx))
        numbers = await waiting_streams.read_numbers(tx)
    documents = [_document(each, numbers) for each in lags]
    if as_json:
        print_json({"feeds": documents})
        return
    rows = [
        [state_text(each) if name == "state" else each[name] for name in _COLUMN_FIELDS]
        for each in documents
    ]
    print_table(TABLE_COLUMNS, rows, empty=NO_FEED)
    print_not_running(documents)


@app.command
async def show(name: str, /, *, sink: ChosenSink = None, as_json: AsJson = False) -> None:
    """
    Show a feed, the event that it could not publish, and what operators did.

    Args:
        name: Of the feed.
    """
    async with event_transaction() as tx:
        feed = await feed_actions.find(tx, name, sink)
        _, lags = await read_lags(tx, await EventLog.load(tx), [feed])
        failure = await feed_failures.read_open(tx, feed.key)
        actions = await operator_audit.read(tx, feed_actions.audited(feed.key), ACTION_LIMIT)
        complete_from = await EventLog.runs_complete_from(tx)
        numbers = await waiting_streams.read_numbers(tx)
        waiting = await waiting_streams.read(tx, feed.key, MAX_SHOWN)
    document = {**_document(lags[0], numbers), "runs_complete_from": complete_from}
    failed = asdict(failure) if failure else None
    if as_json:
        lists = {
            "differences": feed.differences,
            "failure": failed,
            "waiting": [*map(asdict, waiting)],
            "actions": [*map(asdict, actions)],
        }
        print_json({"feed": {**document, **lists}})
        return
    print_fields({**document, "state": state_text(document)})
    for difference in feed.differences:
        print_line(difference)
    if failed is not None:
        print_line("The feed is stopped, see `error`. The event at `position` is the next one:")
        print_fields(failed)
    elif not waiting:
        print_line("Every event up to the position was published, skipped or discarded.")
    for each in waiting:
        state = "a dead letter" if each.retry_at is None else "refused"
        print_line(f"Stream {each.stream} waits: its next event is {state}.")
        print_fields(asdict(each))
    print_actions(actions)
    print_not_running([document])


@app.command
async def retry(
    name: str,
    /,
    *,
    reason: Reason,
    sink: ChosenSink = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Publish the event again at which a feed is stopped, or the events that its streams wait for.

    Args:
        name: Of the feed.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        feed = await feed_actions.find(tx, name, sink)
        position = await feed_actions.retry(tx, feed.key, acting)
    text = f"{feed.key} goes on with the event at position {position}."
    print_done(text, {"retried": name, "sink": feed.sink, "position": position}, as_json=as_json)


@app.command
async def discard(
    name: str,
    position: int,
    /,
    *,
    reason: Reason,
    sink: ChosenSink = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Go on without an event at which a feed is stopped or one of its streams waits.

    Consumers receive it only after a rewind.

    Args:
        name: Of the feed.
        position: Of the event, as `feeds show` prints it.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        feed = await feed_actions.find(tx, name, sink)
        await feed_actions.discard(tx, feed.key, position, acting)
    text = f"{feed.key} goes on without the event at position {position}."
    print_done(text, {"discarded": name, "sink": feed.sink, "position": position}, as_json=as_json)


@app.command
async def rewind(
    name: str,
    /,
    *,
    to: Annotated[int, Parameter(help="The position to continue after; 0: from the first event.")],
    reason: Reason = "",
    sink: ChosenSink = None,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Publish events again, with the ids that they had.

    Args:
        name: Of the feed.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        feed = await feed_actions.find(tx, name, sink)
        await feed_actions.rewind(tx, feed.key, to, acting)
        complete_from = await EventLog.runs_complete_from(tx)
    text = f"{feed.key} continues after position {to}."
    if to + 1 < complete_from:
        text += f" Of runs, all events from position {complete_from} on are stored."
    done = {"rewound": name, "sink": feed.sink, "position": to, "runs_complete_from": complete_from}
    print_done(text, done, as_json=as_json)


_COLUMN_FIELDS = (
    *("name", "sink", "state", "position"),
    *("lag_events", "lag_seconds", "skipped", "waiting_streams", "owner", "missing_until"),
)


def _document(lag: Lag[StoredFeed], numbers: Mapping[FeedKey, WaitingNumbers]) -> Mapping[str, Any]:
    feed = lag.stored
    of_streams = numbers.get(feed.key, NONE_WAIT)
    return {
        "name": feed.name,
        "sink": feed.sink,
        "state": feed.state,
        "position": feed.position,
        "lag_events": lag.lag_events,
        "lag_seconds": round(lag.lag_seconds, 3),
        "skipped": feed.skipped,
        "waiting_streams": of_streams.streams,
        "dead_letters": of_streams.dead_letters,
        "running": feed.owner is not None,
        "owner": feed.owner,
        "updated_at": feed.updated_at,
        "missing_until": feed.missing_until,
    }
