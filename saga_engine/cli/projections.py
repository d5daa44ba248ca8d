"""`saga-engine projections`: what projections do, and what an operator does with them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from typing import Annotated, Any

from cyclopts import App, Parameter

from saga_engine.cli.event_database import event_database, event_transaction
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
    print_field,
    print_json,
    print_line,
    print_table,
)
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.projections import (
    projection_actions,
    projection_failures,
    projection_rebuild,
    projection_table,
)
from saga_engine.events.projections.projection_failures import FailureNumbers, ParkedStream
from saga_engine.events.projections.projection_rebuild import Rebuild
from saga_engine.events.projections.projection_switch import Switch
from saga_engine.events.projections.projection_table import (
    ProjectionRole,
    ProjectionState,
    StoredProjection,
)
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.lag import Lag, read_lags
from saga_engine.events.readers.operator_audit import Action
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
    rows = [[document[column] for column in _COLUMN_FIELDS] for document in documents]
    print_table(TABLE_COLUMNS, rows, empty="No projector has registered a projection.")


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
    print_table(FAILURE_COLUMNS, rows, empty="No event waits for a correction.")
    if parked:
        print_line("")
        print_table(PARKED_COLUMNS, [*map(_parked_row, parked)], empty="")
    if resolved:
        print_line("")
        print_table(RESOLVED_COLUMNS, [astuple(each) for each in resolved], empty="")
    print_actions(actions)


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


@app.command
async def rebuild(
    name: str,
    /,
    *,
    reason: Reason = "",
    operator: Operator = None,
    code_version: Annotated[int | None, Parameter(help="Of the declaration to fill them.")] = None,
    discard: bool = False,
    as_json: AsJson = False,
) -> None:
    """
    Fill new tables from the first event, beside the live ones; a projector does it.

    Args:
        name: Of the projection.
        discard: Remove a rebuild and its tables instead.
    """
    acting = acting_operator(operator, reason)
    if discard:
        async with event_transaction() as tx:
            version = await projection_rebuild.discard(tx, name, acting)
        removed = {"discarded": name, "version": version}
        print_done(f"Version {version} of {name} is removed.", removed, as_json=as_json)
        return
    async with event_transaction() as tx:
        started = await projection_rebuild.begin(tx, name, acting, code_version)
        complete_from = await EventLog.runs_complete_from(tx)
    text = _started_text(name, started, is_of_other_code=code_version is not None)
    if complete_from > 1:
        text += f"\nOf runs, all events from position {complete_from} on are stored."
    done = {"rebuilding": name, **asdict(started), "runs_complete_from": complete_from}
    print_done(text, done, as_json=as_json)


@app.command
async def switch(
    name: str,
    /,
    *,
    back: bool = False,
    reason: Reason = "",
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Exchange the live tables for the rebuilt ones, in one transaction.

    Args:
        name: Of the projection.
        back: Return to the tables before the last switch.
    """
    acting = acting_operator(operator, reason)
    action = Action.BACK if back else Action.SWITCH
    settings = Settings.load()
    async with event_database(settings) as database:
        done = await Switch(database, settings, acting).run(name, action)
    text = f"Version {done.version} of {name} is live."
    if done.previous is not None:
        text += f" Version {done.previous} is kept, to return to it."
    print_done(text, {"switched": name, **asdict(done)}, as_json=as_json)


def _started_text(name: str, started: Rebuild, *, is_of_other_code: bool) -> str:
    code = f"version {started.code_version} of the code"
    start = f" Start a projector with {code} if none runs." if is_of_other_code else ""
    return (
        f"Version {started.version} of the tables of {name} is filled by {code}, from position"
        f" {started.from_position}, the first event that exists.{start} When `saga-engine"
        f" projections list` shows it as ready: saga-engine projections switch {name}"
    )


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
        "owner": projection.owner,
        "updated_at": projection.updated_at,
        "role": projection.role,
        "code_version": projection.code_version,
        "missing_until": projection.missing_until,
    }
