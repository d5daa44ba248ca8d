"""`saga-engine projections`: what projections do, and what an operator does with them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
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
from saga_engine.cli.projection_rebuild import rebuild, switch
from saga_engine.cli.reader_state import print_not_running, state_text
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.projections import (
    projection_actions,
    projection_failures,
    projection_table,
)
from saga_engine.events.projections.projection_failures import FailureNumbers, ParkedStream
from saga_engine.events.projections.projection_table import (
    ProjectionRole,
    ProjectionState,
    StoredProjection,
)
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.lag import Lag, read_lags
from saga_engine.settings import Settings

app = App(
    name="projections",
    help="List, show, pause, resume, retry, skip, rebuild and switch.",
    version_flags=(),
)

TABLE_COLUMNS = (
    *("projection", "version", "code version", "state", "position"),
    *("lag events", "lag s", "waiting events", "parked streams", "owner", "missing until", "role"),
)
FAILURE_COLUMNS = ("position", "stream", "event", "attempts", "at", "parked", "error")
NO_PROJECTION = "No projector has registered a projection. Start one: saga-engine projector MODULE"
PARKED_COLUMNS = ("stream", "next position", "retry requested")
RESOLVED_COLUMNS = ("position", "stream", "event", "resolution", "at", "operator", "reason")
RESOLVED_LIMIT = 100
"""Resolved failures that `show` prints, the last ones."""

Version = Annotated[int | None, Parameter(help="Of its tables; by default the live ones.")]


@app.command(name="list")
async def list_projections(*, as_json: AsJson = False) -> None:
    """List the projections of a database."""
    async with event_transaction() as tx:
        stored = await projection_table.read(tx)
        _, lags = await read_lags(tx, await EventLog.load(tx), stored)
        numbers = await projection_failures.read_numbers(tx)
    window = Settings.load().projection_switch_window
    documents = [_document(each, window, numbers) for each in lags]
    if as_json:
        print_json({"projections": documents})
        return
    rows = [
        [state_text(each) if name == "state" else each[name] for name in _COLUMN_FIELDS]
        for each in documents
    ]
    print_table(TABLE_COLUMNS, rows, empty=NO_PROJECTION)
    print_not_running(documents)


@app.command
async def show(name: str, /, *, version: Version = None, as_json: AsJson = False) -> None:
    """
    Show a projection, its failed events and parked streams, and what operators did with it.

    Args:
        name: Of the projection.
    """
    async with event_transaction() as tx:
        found = await projection_actions.find(tx, name, version)
        _, (lag,) = await read_lags(tx, await EventLog.load(tx), [found])
        numbers = await projection_failures.read_numbers(tx, name)
        failures = await projection_failures.read_open(tx, name, found.version)
        parked = await projection_failures.read_parked(tx, name, found.version)
        resolved = await projection_failures.read_resolved(tx, name, found.version, RESOLVED_LIMIT)
        actions = await operator_audit.read(tx, projection_actions.audited(name), ACTION_LIMIT)
        complete_from = await EventLog.runs_complete_from(tx)
    window = Settings.load().projection_switch_window
    document = {**_document(lag, window, numbers), "runs_complete_from": complete_from}
    if as_json:
        lists = {
            "failures": [*map(asdict, failures)],
            "parked": [*map(asdict, parked)],
            "resolved": [*map(asdict, resolved)],
            "actions": [*map(asdict, actions)],
        }
        print_json({"projection": {**document, **lists}})
        return
    print_fields({**document, "state": state_text(document)})
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
    print_table(FAILURE_COLUMNS, rows, empty="No event waits for a correction.")
    if parked:
        print_line("")
        print_table(PARKED_COLUMNS, [*map(_parked_row, parked)], empty="")
    if resolved:
        print_line("")
        print_table(RESOLVED_COLUMNS, [astuple(each) for each in resolved], empty="")
    print_actions(actions)
    print_not_running([document])


@app.command
async def pause(
    name: str,
    /,
    *,
    reason: Reason = "",
    operator: Operator = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """
    Pause a projection before its next batch.

    Args:
        name: Of the projection.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        await projection_actions.pause(tx, name, acting, version)
    print_done(f"{name} is paused.", {"paused": name}, as_json=as_json)


@app.command
async def resume(
    name: str,
    /,
    *,
    reason: Reason = "",
    operator: Operator = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """
    Let a paused projection continue.

    Args:
        name: Of the projection.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        await projection_actions.resume(tx, name, acting, version)
    print_done(f"{name} continues.", {"resumed": name}, as_json=as_json)


@app.command
async def retry(
    name: str,
    /,
    *,
    reason: Reason,
    operator: Operator = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """
    Try the events again that could not be applied.

    Args:
        name: Of the projection.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        number = await projection_actions.retry(tx, name, acting, version)
    done = {"retried": name, "failures": number}
    failures = "1 failure" if number == 1 else f"{number} failures"
    print_done(f"{name} tries {failures} again.", done, as_json=as_json)


@app.command
async def skip(
    name: str,
    position: int,
    /,
    *,
    reason: Reason,
    operator: Operator = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """
    Go on without an event that could not be applied; the tables then lack it.

    Args:
        name: Of the projection.
        position: Of the event, as `projections show` prints it.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        await projection_actions.skip(tx, name, position, acting, version)
    done = {"skipped": name, "position": position}
    text = f"{name} goes on without the event at position {position}."
    print_done(text, done, as_json=as_json)


app.command(rebuild)
app.command(switch)


def _parked_row(parked: ParkedStream) -> Sequence[object]:
    return (parked.stream, parked.next_position, parked.retry_requested_at)


_COLUMN_FIELDS = (
    *("name", "version", "code_version", "state", "position"),
    *(
        "lag_events",
        "lag_seconds",
        "waiting_events",
        "parked_streams",
        "owner",
        "missing_until",
        "role",
    ),
)


def _state(lag: Lag[StoredProjection], window: int) -> str:
    """The state; of a rebuild that is active, whether it can be switched to."""
    stored = lag.stored
    if stored.role is ProjectionRole.REBUILD and stored.state is ProjectionState.ACTIVE:
        return "ready" if stored.has_tables and lag.lag_events <= window else "rebuilding"
    return stored.state


def _document(
    lag: Lag[StoredProjection], window: int, numbers: Mapping[tuple[str, int], FailureNumbers]
) -> Mapping[str, Any]:
    projection = lag.stored
    failed = numbers[projection.name, projection.version]
    return {
        "name": projection.name,
        "version": projection.version,
        "state": _state(lag, window),
        "position": projection.position,
        "lag_events": lag.lag_events,
        "lag_seconds": round(lag.lag_seconds, 3),
        "waiting_events": failed.waiting,
        "parked_streams": failed.parked_streams,
        "skipped_events": failed.skipped,
        "running": projection.owner is not None,
        "owner": projection.owner,
        "updated_at": projection.updated_at,
        "role": projection.role,
        "code_version": projection.code_version,
        "missing_until": projection.missing_until,
    }
