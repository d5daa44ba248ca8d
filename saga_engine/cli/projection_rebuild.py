"""`saga-engine projections rebuild` and `switch`: new tables, beside the live ones."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from saga_engine.cli.event_database import event_database, event_transaction
from saga_engine.cli.operator import Operator
from saga_engine.cli.operator_actions import Reason, acting_operator
from saga_engine.cli.output import AsJson, format_cell, print_done
from saga_engine.errors import ConfigurationError, NotFound
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.projections import projection_rebuild
from saga_engine.events.projections.projection_key import ENGINE_PREFIX
from saga_engine.events.projections.projection_rebuild import Rebuild
from saga_engine.events.projections.projection_switch import Switch
from saga_engine.events.read_models.read_model_rebuild import ReadModelRebuild
from saga_engine.events.read_models.read_models import READ_MODELS
from saga_engine.events.readers.operator_audit import Action
from saga_engine.events.readers.operator_audit import Operator as ActingOperator
from saga_engine.nearest_name import did_you_mean
from saga_engine.settings import Settings


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

    A read model of the engine is filled again by this command, in one transaction.

    Args:
        name: Of the projection.
        discard: Remove a rebuild and its tables instead.
    """
    acting = acting_operator(operator, reason)
    if name.startswith(ENGINE_PREFIX):
        if discard or code_version is not None:
            raise ConfigurationError(f"{name} has no --code-version and no rebuild to --discard.")
        await _rebuild_read_model(name, acting, as_json=as_json)
        return
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


async def _rebuild_read_model(name: str, operator: ActingOperator, *, as_json: bool) -> None:
    models = {each.name: each for each in READ_MODELS}
    if name not in models:
        raise NotFound(
            f"The engine has no read model {name!r}.{did_you_mean(name, models)} It has"
            f" {', '.join(models)}."
        )
    settings = Settings.load()
    timeout = settings.read_model_rebuild_timeout
    # Its own timeout ends it first, with a sentence that says which setting to raise.
    limits = {"database_transaction_timeout": timeout + settings.database_transaction_timeout}
    async with event_database(settings.model_copy(update=limits)) as database:
        rebuild = ReadModelRebuild(
            database=database,
            model=models[name],
            operator=operator,
            window=settings.event_window,
            timeout=timeout,
        )
        done = await rebuild.run()
    text = f"{name} is filled again: there are no events of runs."
    if done.from_time is not None:
        text = (
            f"{name} is filled again from position {done.from_position}, the first event of a run"
            f" that is stored ({format_cell(done.from_time)} UTC), up to {done.position}."
        )
    if done.runs_complete_from > 1:
        text += (
            f" Retention has dropped runs with events before position {done.runs_complete_from};"
            " they are not counted any more."
        )
    print_done(text, {"rebuilt": name, **asdict(done)}, as_json=as_json)


def _started_text(name: str, started: Rebuild, *, is_of_other_code: bool) -> str:
    code = f"version {started.code_version} of the code"
    start = f" Start a projector with {code} if none runs." if is_of_other_code else ""
    return (
        f"Version {started.version} of the tables of {name} is filled by {code}, from position"
        f" {started.from_position}, the first event that exists.{start} When `saga-engine"
        f" projections list` shows it as ready: saga-engine projections switch {name}"
    )
