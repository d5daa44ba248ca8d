"""`saga-engine projections`: what projections do, and what an operator does with them."""

from collections.abc import Mapping
from dataclasses import asdict, astuple
from typing import Any

from cyclopts import App

from saga_engine.cli.event_database import Reason, event_transaction
from saga_engine.cli.operator import Operator, operator_or_login_name
from saga_engine.cli.output import AsJson, print_field, print_json, print_line, print_table
from saga_engine.events import projection_actions, projection_failures
from saga_engine.events.event_log import EventLog
from saga_engine.events.projection_lag import ProjectionLag, read_lags

app = App(name="projections", help="List, show, pause, resume, retry and skip.")

TABLE_COLUMNS = ("projection", "version", "state", "position", "lag events", "lag s", "owner")
FAILURE_COLUMNS = ("position", "stream", "event", "attempts", "at", "parked", "error")

RESOLVED_COLUMNS = ("position", "stream", "event", "resolution", "at", "operator", "reason")
RESOLVED_LIMIT = 100
"""Resolved failures that `show` prints, the last ones."""


@app.command(name="list")
async def list_projections(*, as_json: AsJson = False) -> None:
    """List the projections of a database."""
    async with event_transaction() as tx:
        _, lags = await read_lags(tx, await EventLog.load(tx))
    documents = [*map(_document, lags)]
    if as_json:
        print_json({"projections": documents})
        return
    rows = [[document[column] for column in _COLUMN_FIELDS] for document in documents]
    print_table(TABLE_COLUMNS, rows, empty="No projector has registered a projection.")


@app.command
async def show(name: str, /, *, as_json: AsJson = False) -> None:
    """
    Show a projection, the events that it could not apply, and what operators did about them.

    Args:
        name: Of the projection.
    """
    async with event_transaction() as tx:
        _, lags = await read_lags(tx, await EventLog.load(tx), name)
        if not lags:
            raise projection_actions.not_found(name)
        version = lags[-1].projection.version
        failures = await projection_failures.read_open(tx, name, version)
        resolved = await projection_failures.read_resolved(tx, name, version, RESOLVED_LIMIT)
    document = _document(lags[-1])
    if as_json:
        lists = {"failures": [*map(asdict, failures)], "resolved": [*map(asdict, resolved)]}
        print_json({"projection": {**document, **lists}})
        return
    for field, value in document.items():
        print_field(field, value)
    rows = [
        (
            each.position,
            each.stream,
            each.type,
            each.attempts,
            each.failed_at,
            each.parked,
            each.error,
        )
        for each in failures
    ]
    print_table(FAILURE_COLUMNS, rows, empty="Every event was applied.")
    if resolved:
        print_line("")
        print_table(RESOLVED_COLUMNS, [astuple(each) for each in resolved], empty="")


@app.command
async def pause(name: str, /, *, as_json: AsJson = False) -> None:
    """
    Pause a projection before its next batch.

    Args:
        name: Of the projection.
    """
    async with event_transaction() as tx:
        await projection_actions.pause(tx, name)
    _print_done(f"{name} is paused.", {"paused": name}, as_json=as_json)


@app.command
async def resume(name: str, /, *, as_json: AsJson = False) -> None:
    """
    Let a paused projection continue.

    Args:
        name: Of the projection.
    """
    async with event_transaction() as tx:
        await projection_actions.resume(tx, name)
    _print_done(f"{name} continues.", {"resumed": name}, as_json=as_json)


@app.command
async def retry(
    name: str, /, *, reason: Reason, operator: Operator = None, as_json: AsJson = False
) -> None:
    """
    Try the events again that could not be applied.

    Args:
        name: Of the projection.
    """
    acting = projection_actions.Operator(operator_or_login_name(operator), reason)
    async with event_transaction() as tx:
        number = await projection_actions.retry(tx, name, acting)
    done = {"retried": name, "failures": number}
    _print_done(f"{number} failures of {name} are tried again.", done, as_json=as_json)


@app.command
async def skip(
    name: str,
    position: int,
    /,
    *,
    reason: Reason,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Go on without an event that could not be applied; the tables then lack it.

    Args:
        name: Of the projection.
        position: Of the event, as `projections show` prints it.
    """
    acting = projection_actions.Operator(operator_or_login_name(operator), reason)
    async with event_transaction() as tx:
        await projection_actions.skip(tx, name, position, acting)
    done = {"skipped": name, "position": position}
    text = f"{name} goes on without the event at position {position}."
    _print_done(text, done, as_json=as_json)


def _print_done(text: str, document: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print_line(text)


_COLUMN_FIELDS = (
    *("name", "version", "state", "position"),
    *("lag_events", "lag_seconds", "owner"),
)


def _document(lag: ProjectionLag) -> Mapping[str, Any]:
    projection = lag.projection
    return {
        "name": projection.name,
        "version": projection.version,
        "state": projection.state,
        "position": projection.position,
        "lag_events": lag.lag_events,
        "lag_seconds": round(lag.lag_seconds, 3),
        "owner": projection.owner,
        "updated_at": projection.updated_at,
    }
