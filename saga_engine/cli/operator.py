"""
`saga-engine cancel` and `resolve`: what a person does to a run.

What is asked is recorded together with who asked and why, in one transaction; a worker decides it
and writes its verdict into the same record. The command waits for that verdict.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from getpass import getuser
from typing import Annotated

from cyclopts import Parameter

from saga_engine.cli.bulk_resolve import (
    Asked,
    Bulk,
    Pace,
    agreed,
    matching,
    print_outcomes,
    print_preview,
    progress_line,
    rate_of,
    resolution_of,
    say_next,
)
from saga_engine.cli.database import database, no_run, run_id_of
from saga_engine.cli.incidents import EVERY_OPEN_ONE, Which, name_of, open_incident
from saga_engine.cli.json_argument import json_of
from saga_engine.cli.output import AsJson, cell, document, line
from saga_engine.cli.paging import options
from saga_engine.decider.triggers import Cancel, Trigger, trigger_data
from saga_engine.encryption.configuration import sealing_of
from saga_engine.errors import ConfigurationError, Conflict, TimedOut
from saga_engine.identifiers import uuid7
from saga_engine.postgres.statement import Transaction, Transactions
from saga_engine.protocol.limits import limits_of
from saga_engine.settings import Settings
from saga_engine.store import (
    audit,
    checked_requests,
    pending_requests,
    run_queries,
    stranded_starts,
)
from saga_engine.store.audit import Act, Audited
from saga_engine.store.pending_requests import Item
from saga_engine.vocabulary import Resolution

ACTIONS = """retry: read the kept reply again, or send the command again, with a fresh budget of
attempts. skip: go on without it. complete: it was done by hand. reject: the participant did
nothing, so turn back. abandon: close the run and leave its effects as they are."""

LOOK_AGAIN = 0.1
"""Seconds between looks for the verdict; a worker takes recorded requests in about as often."""

Reason = Annotated[str, Parameter(help="Why; it is kept on record.")]
By = Annotated[str | None, Parameter(help="Who; the user of this shell when left out.")]


def whoever(by: str | None) -> str:
    """Tell who acts."""
    try:
        return by or getuser()
    except (KeyError, OSError):  # a container's user often has no name
        raise ConfigurationError("This user has no name. Say who you are with --by.") from None


async def cancel(run: str, /, *, reason: Reason, by: By = None, as_json: AsJson = False) -> None:
    """
    Have a run undone: what is in flight is awaited, then what was done is compensated.

    After its pivot a run can only go forward; then this is refused. A run that waits for a
    definition that no worker has does not begin.

    Args:
        run: Its id.
    """
    run_id, settings, who = run_id_of(run), Settings.load(), whoever(by)
    act = Act(str(uuid7()), who, "cancel", reason, run_id)
    async with database(settings) as opened:
        async with opened.transaction() as tx:
            # In this order: a start that begins in between is a run then.
            waits = bool(await pending_requests.starts_of(tx, [run_id]))
            there = await run_queries.find(tx, run_id) is not None
            if not there and not waits:
                raise no_run(run_id)
            await audit.record(tx, [act])
            if there or not await stranded_starts.cancel(tx, run_id, act.id):
                await _request(tx, act, Cancel(who, reason))
        _report(await _verdict(opened, act, settings.client_timeout), as_json=as_json)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """How many are resolved at once, and whether to go on without asking."""

    everything: Annotated[bool, Parameter(name="--all", help="All that are open.")] = False
    dry_run: Annotated[bool, Parameter(help="Show which are meant and do nothing.")] = False
    yes: Annotated[bool, Parameter(help="Do not ask.")] = False
    rate: Annotated[str | None, Parameter(help="No more than so many: 5/s, 30/m or 100/h.")] = None
    limit: Annotated[int, Parameter(help="Only the oldest so many, at most 100000.")] = 10_000


ONE = Doing()
LIMIT_MAX = 100_000
"""Incidents that one command resolves; each takes a kilobyte of its memory."""


async def resolve(
    *incident_and_action: Annotated[
        str, Parameter(name="INCIDENT ACTION", help=ACTIONS, json_list=False)
    ],
    reason: Reason,
    result: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="For complete: the step's reply, as JSON, @FILE or -.",
        ),
    ] = None,
    which: Which = EVERY_OPEN_ONE,
    doing: Doing = ONE,
    by: By = None,
    as_json: AsJson = False,
) -> int:
    """
    Act on an incident, or on all that have a cause, a step, a saga or an age in common.

    INCIDENT is RUN/NUMBER as `incidents` shows it, or RUN when it has one open incident. Without
    it, choose many with --cause, --step, --saga, --older-than or --all; exit 7 when some of them
    were refused.
    """
    incident, action = _words(incident_and_action)
    if result is not None and action is not Resolution.COMPLETE:
        raise ConfigurationError(f"--result goes with complete, not with {action}.")
    given = None if result is None else json_of(result, "--result")
    asked = Asked(action, whoever(by), reason, given)
    many = doing.everything or which != EVERY_OPEN_ONE
    if many == (incident is not None):
        raise ConfigurationError(
            "Name one incident, or choose many with --cause, --step, --saga, --older-than or --all."
        )
    if incident is not None:
        if doing != ONE:
            raise ConfigurationError("--dry-run, --yes, --rate and --limit are for many incidents.")
        await _resolve_one(incident, asked, as_json=as_json)
        return 0
    return await _resolve_many(which, doing, asked, as_json=as_json)


def _words(typed: Sequence[str]) -> tuple[str | None, Resolution]:
    """Read [INCIDENT] ACTION."""
    actions = ", ".join(Resolution)
    if not typed:
        raise ConfigurationError(f"`resolve` needs an ACTION: {actions}.")
    *named, action = typed
    if action not in list(Resolution):
        raise ConfigurationError(f"{action!r} is not an action, which is one of {actions}.")
    if len(named) > 1:
        raise ConfigurationError(
            "Name one incident. To resolve many, choose them by --cause, --step or --saga."
        )
    return (named[0] if named else None), Resolution(action)


async def _resolve_one(incident: str, asked: Asked, *, as_json: bool) -> None:
    settings = Settings.load()
    async with database(settings) as opened:
        async with opened.transaction() as tx:
            found = await open_incident(tx, incident)
            trigger = resolution_of(found, asked, sealing_of(settings), limits_of(settings))
            act = Act(
                *(str(uuid7()), asked.by, asked.action.value, asked.reason, found.run_id),
                name_of(found),
            )
            await audit.record(tx, [act])
            await _request(tx, act, trigger)
        _report(await _verdict(opened, act, settings.client_timeout), as_json=as_json)


async def _resolve_many(which: Which, doing: Doing, asked: Asked, *, as_json: bool) -> int:
    if not 1 <= doing.limit <= LIMIT_MAX:
        raise ConfigurationError(f"--limit is 1 to {LIMIT_MAX}.")
    pace = Pace(None if doing.rate is None else rate_of(doing.rate))
    choice, settings = which.choice(), Settings.load()
    async with database(settings) as opened:
        meant = await matching(opened, choice, doing.limit, settings.listing_count)
        if doing.dry_run:
            print_preview(meant, asked, as_json=as_json)
            return 0
        if not agreed(meant, asked, yes=doing.yes):
            return 0
        sealing, limits = sealing_of(settings), limits_of(settings)
        bulk = Bulk(opened, asked, sealing, settings.client_timeout, limits)
        decided = await bulk.resolve(meant.found, pace, progress_line)
    say_next(meant, _again(which, doing, asked))
    return print_outcomes(decided, asked, meant, as_json=as_json)


def _again(which: Which, doing: Doing, asked: Asked) -> list[str]:
    """Give the command for the incidents that the limit left; without the result, which is long."""
    given = {
        **which.given,
        "--all": doing.everything,
        "--limit": doing.limit,
        "--rate": doing.rate,
        "--reason": asked.reason,
        "--by": asked.by,
        "--yes": True,
    }
    result = ["--result", "RESULT"] if asked.action is Resolution.COMPLETE else []
    return ["resolve", asked.action.value, *options(given), *result]


async def _request(tx: Transaction, act: Act, trigger: Trigger) -> None:
    """Record what a worker is to decide for an act that is on record."""
    assert act.run_id is not None, "whatever is done here is done to a run"
    kind, body = trigger_data(trigger)
    await checked_requests.record(tx, [Item(kind, act.run_id, body, audit_id=act.id)])


async def _verdict(opened: Transactions, act: Act, seconds: float) -> Audited:
    """Wait until a worker has decided; it writes to PostgreSQL, which tells nobody (no NOTIFY)."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                async with opened.transaction() as tx:
                    found = await audit.find(tx, act.id)
                if found is not None and found.outcome is not None:
                    return found
                await asyncio.sleep(LOOK_AGAIN)
    except TimeoutError:
        raise TimedOut(
            f"No worker has decided it in {seconds:g} seconds. It is recorded and will be decided"
            f" by the next worker that has the run's saga. `saga-engine show {act.run_id}` tells."
        ) from None


def _report(verdict: Audited, *, as_json: bool) -> None:
    if verdict.outcome != "accepted":
        raise Conflict(f"Refused: {verdict.message}")
    if as_json:
        document(
            {
                "run_id": verdict.run_id,
                "action": verdict.action,
                "target": verdict.target,
                "outcome": verdict.outcome,
                "message": verdict.message,
            }
        )
    else:
        line(cell(f"The {verdict.action} is accepted. {verdict.message or ''}".strip()))
