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
    BulkResolver,
    RateLimiter,
    ResolutionRequest,
    build_resolve_trigger,
    confirm_resolution,
    parse_rate,
    print_next_command,
    print_outcomes,
    print_preview,
    print_progress,
    select_incidents,
)
from saga_engine.cli.database import open_database, parse_run_id, run_not_found
from saga_engine.cli.incidents import (
    NO_INCIDENT_FILTER,
    IncidentFilterOptions,
    find_open_incident,
    format_incident_id,
)
from saga_engine.cli.json_argument import parse_json
from saga_engine.cli.output import AsJson, format_cell, print_json, print_line
from saga_engine.cli.paging import option_words
from saga_engine.decider.triggers import Cancel, Trigger, serialize_trigger
from saga_engine.encryption.configuration import encryption_from
from saga_engine.errors import ConfigurationError, Conflict, TimedOut
from saga_engine.identifiers import uuid7
from saga_engine.postgres.statement import Transaction, TransactionSource
from saga_engine.protocol.limits import body_limits
from saga_engine.settings import Settings
from saga_engine.store import (
    audit,
    checked_requests,
    pending_requests,
    run_queries,
    stranded_starts,
)
from saga_engine.store.audit import AuditRecord, OperatorAction
from saga_engine.store.pending_requests import NewRequest
from saga_engine.vocabulary import Resolution

ACTIONS_HELP = """retry: read the kept reply again, or send the command again, with a fresh
budget of attempts. skip: go on without it. complete: it was done by hand. reject: the participant
did nothing, so compensate. abandon: close the run and leave its effects as they are."""

POLL_INTERVAL = 0.1
"""Seconds between looks for the verdict; a worker takes recorded requests in about as often."""

Reason = Annotated[str, Parameter(help="Why; it is kept on record.")]
Operator = Annotated[str | None, Parameter(help="Who; the user of this shell when left out.")]


def operator_or_login_name(operator: str | None) -> str:
    """Tell who acts."""
    try:
        return operator or getuser()
    except (KeyError, OSError):  # a container's user often has no name
        raise ConfigurationError(
            "This user has no name. Say who you are with --operator."
        ) from None


async def cancel(
    run: str, /, *, reason: Reason, operator: Operator = None, as_json: AsJson = False
) -> None:
    """
    Have a run undone: what is in flight is awaited, then what was done is compensated.

    After its pivot a run can only go forward; then this is refused. A run that waits for a
    definition that no worker has does not begin.

    Args:
        run: Its id.
    """
    run_id, settings, operator_name = (
        parse_run_id(run),
        Settings.load(),
        operator_or_login_name(operator),
    )
    audit_entry = OperatorAction(str(uuid7()), operator_name, "cancel", reason, run_id)
    async with open_database(settings) as database:
        async with database.transaction() as tx:
            # In this order: a start that begins in between is a run then.
            has_pending_start = bool(await pending_requests.find_starts(tx, [run_id]))
            run_exists = await run_queries.find(tx, run_id) is not None
            if not run_exists and not has_pending_start:
                raise run_not_found(run_id)
            await audit.record(tx, [audit_entry])
            if run_exists or not await stranded_starts.cancel_start(tx, run_id, audit_entry.id):
                await _record_request(tx, audit_entry, Cancel(operator_name, reason))
        _print_verdict(
            await _wait_for_verdict(database, audit_entry, settings.client_timeout), as_json=as_json
        )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOptions:
    """How many are resolved at once, and whether to go on without asking."""

    all_open: Annotated[bool, Parameter(name="--all", help="All that are open.")] = False
    dry_run: Annotated[bool, Parameter(help="Show which are meant and do nothing.")] = False
    yes: Annotated[bool, Parameter(help="Do not ask.")] = False
    rate: Annotated[str | None, Parameter(help="No more than so many: 5/s, 30/m or 100/h.")] = None
    limit: Annotated[int, Parameter(help="Only the oldest so many, at most 100000.")] = 10_000


DEFAULT_BULK_OPTIONS = BulkOptions()
BULK_LIMIT_MAX = 100_000
"""Incidents that one command resolves; each takes a kilobyte of its memory."""


async def resolve(
    *incident_and_action: Annotated[
        str, Parameter(name="INCIDENT ACTION", help=ACTIONS_HELP, json_list=False)
    ],
    reason: Reason,
    result: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="For complete: the step's reply, as JSON, @FILE or -.",
        ),
    ] = None,
    incident_filter: IncidentFilterOptions = NO_INCIDENT_FILTER,
    bulk_options: BulkOptions = DEFAULT_BULK_OPTIONS,
    operator: Operator = None,
    as_json: AsJson = False,
) -> int:
    """
    Act on an incident, or on all that have a cause, a step, a saga or an age in common.

    INCIDENT is RUN/NUMBER as `incidents` shows it, or RUN when it has one open incident. Without
    it, choose many with --cause, --step, --saga, --older-than or --all; exit 7 when some of them
    were refused.
    """
    incident_id, action = _parse_words(incident_and_action)
    if result is not None and action is not Resolution.COMPLETE:
        raise ConfigurationError(f"--result goes with complete, not with {action}.")
    result_data = None if result is None else parse_json(result, "--result")
    request = ResolutionRequest(action, operator_or_login_name(operator), reason, result_data)
    is_bulk = bulk_options.all_open or incident_filter != NO_INCIDENT_FILTER
    if is_bulk == (incident_id is not None):
        raise ConfigurationError(
            "Name one incident, or choose many with --cause, --step, --saga, --older-than or --all."
        )
    if incident_id is not None:
        if bulk_options != DEFAULT_BULK_OPTIONS:
            raise ConfigurationError("--dry-run, --yes, --rate and --limit are for many incidents.")
        await _resolve_one(incident_id, request, as_json=as_json)
        return 0
    return await _resolve_many(incident_filter, bulk_options, request, as_json=as_json)


def _parse_words(words: Sequence[str]) -> tuple[str | None, Resolution]:
    """Read [INCIDENT] ACTION."""
    actions = ", ".join(Resolution)
    if not words:
        raise ConfigurationError(f"`resolve` needs an ACTION: {actions}.")
    *incident_ids, action = words
    if action not in list(Resolution):
        raise ConfigurationError(f"{action!r} is not an action, which is one of {actions}.")
    if len(incident_ids) > 1:
        raise ConfigurationError(
            "Name one incident. To resolve many, choose them by --cause, --step or --saga."
        )
    return (incident_ids[0] if incident_ids else None), Resolution(action)


async def _resolve_one(incident_id: str, request: ResolutionRequest, *, as_json: bool) -> None:
    settings = Settings.load()
    async with open_database(settings) as database:
        async with database.transaction() as tx:
            stored = await find_open_incident(tx, incident_id)
            trigger = build_resolve_trigger(
                stored, request, encryption_from(settings), body_limits(settings)
            )
            audit_entry = OperatorAction(
                *(
                    str(uuid7()),
                    request.operator,
                    request.action.value,
                    request.reason,
                    stored.run_id,
                ),
                format_incident_id(stored),
            )
            await audit.record(tx, [audit_entry])
            await _record_request(tx, audit_entry, trigger)
        _print_verdict(
            await _wait_for_verdict(database, audit_entry, settings.client_timeout), as_json=as_json
        )


async def _resolve_many(
    incident_filter: IncidentFilterOptions,
    bulk_options: BulkOptions,
    request: ResolutionRequest,
    *,
    as_json: bool,
) -> int:
    if not 1 <= bulk_options.limit <= BULK_LIMIT_MAX:
        raise ConfigurationError(f"--limit is 1 to {BULK_LIMIT_MAX}.")
    rate_limiter = RateLimiter(None if bulk_options.rate is None else parse_rate(bulk_options.rate))
    criteria, settings = incident_filter.to_criteria(), Settings.load()
    async with open_database(settings) as database:
        selection = await select_incidents(
            database, criteria, bulk_options.limit, settings.max_listing_total
        )
        if bulk_options.dry_run:
            print_preview(selection, request, as_json=as_json)
            return 0
        if not confirm_resolution(selection, request, yes=bulk_options.yes):
            return 0
        encryption, limits = encryption_from(settings), body_limits(settings)
        resolver = BulkResolver(database, request, encryption, settings.client_timeout, limits)
        outcomes = await resolver.resolve(selection.incidents, rate_limiter, print_progress)
    print_next_command(selection, _next_command(incident_filter, bulk_options, request))
    return print_outcomes(outcomes, request, selection, as_json=as_json)


def _next_command(
    incident_filter: IncidentFilterOptions, bulk_options: BulkOptions, request: ResolutionRequest
) -> list[str]:
    """Give the command for the incidents that the limit left; without the result, which is long."""
    option_values = {
        **incident_filter.option_values,
        "--all": bulk_options.all_open,
        "--limit": bulk_options.limit,
        "--rate": bulk_options.rate,
        "--reason": request.reason,
        "--operator": request.operator,
        "--yes": True,
    }
    result_option = ["--result", "RESULT"] if request.action is Resolution.COMPLETE else []
    return ["resolve", request.action.value, *option_words(option_values), *result_option]


async def _record_request(tx: Transaction, audit_entry: OperatorAction, trigger: Trigger) -> None:
    """Record what a worker is to decide for an act that is on record."""
    assert audit_entry.run_id is not None, "whatever is done here is done to a run"
    kind, body = serialize_trigger(trigger)
    await checked_requests.record_operator_requests(
        tx, [NewRequest(kind, audit_entry.run_id, body, audit_id=audit_entry.id)]
    )


async def _wait_for_verdict(
    database: TransactionSource, audit_entry: OperatorAction, seconds: float
) -> AuditRecord:
    """Wait until a worker has decided; it writes to PostgreSQL, which tells nobody (no NOTIFY)."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                async with database.transaction() as tx:
                    audited = await audit.find(tx, audit_entry.id)
                if audited is not None and audited.outcome is not None:
                    return audited
                await asyncio.sleep(POLL_INTERVAL)
    except TimeoutError:
        raise TimedOut(
            f"No worker has decided it in {seconds:g} seconds. It is recorded and will be decided"
            " by the next worker that has the run's saga. `saga-engine show"
            f" {audit_entry.run_id}` tells."
        ) from None


def _print_verdict(verdict: AuditRecord, *, as_json: bool) -> None:
    if verdict.outcome != "accepted":
        raise Conflict(f"Refused: {verdict.message}")
    if as_json:
        print_json(
            {
                "run_id": verdict.run_id,
                "action": verdict.action,
                "target": verdict.target,
                "outcome": verdict.outcome,
                "message": verdict.message,
            }
        )
    else:
        print_line(
            format_cell(f"The {verdict.action} is accepted. {verdict.message or ''}".strip())
        )
