"""
`saga-engine cancel` and `resolve`: operator actions on a run.

The command records the action with the operator and the reason in one transaction. A worker decides
it and writes the outcome into the same audit record; the command waits for it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from getpass import getuser
from typing import Annotated

from cyclopts import Parameter

from saga_engine.cli.bulk_output import (
    confirm_resolution,
    print_next_command,
    print_outcomes,
    print_preview,
    print_progress,
)
from saga_engine.cli.bulk_resolve import (
    BulkResolver,
    RateLimiter,
    ResolutionRequest,
    build_resolve_trigger,
    parse_rate,
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
from saga_engine.decider.triggers import Cancel, Trigger
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
from saga_engine.store.audit import ActionKind, AuditOutcome, AuditRecord, OperatorAction
from saga_engine.store.pending_requests import NewRequest
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.vocabulary import Resolution

ACTIONS_HELP = """retry: read the kept reply again, or send the command again with a new budget of
attempts. skip: go on without the step. complete: the step was done by hand. reject: the participant
did nothing, so compensate. abandon: close the run and leave its effects."""

POLL_INTERVAL = 0.1
"""Seconds between queries for the outcome; a worker takes recorded requests about as often."""

Reason = Annotated[str, Parameter(help="Why; it is stored in the audit log.")]
Operator = Annotated[str | None, Parameter(help="Who; by default your login name.")]


def operator_or_login_name(operator: str | None) -> str:
    """Return the operator: the option, or the login name."""
    try:
        return operator or getuser()
    except (KeyError, OSError):  # a container's user often has no name
        raise ConfigurationError(
            "This user has no login name. Name the operator with --operator."
        ) from None


async def cancel(
    run: str, /, *, reason: Reason, operator: Operator = None, as_json: AsJson = False
) -> None:
    """
    Cancel a run: wait for the steps in flight, then compensate what was done.

    After its pivot a run can only go forward, so a cancel is refused. A run that has not started
    and whose definition no worker has is not started.

    Args:
        run: The run id.
    """
    run_id, settings, operator_name = (
        parse_run_id(run),
        Settings.load(),
        operator_or_login_name(operator),
    )
    audit_entry = OperatorAction(
        id=str(uuid7()),
        operator=operator_name,
        action=ActionKind.CANCEL,
        reason=reason,
        run_id=run_id,
    )
    async with open_database(settings) as database:
        async with database.transaction() as tx:
            # In this order, because the start may become a run between the two queries.
            has_pending_start = bool(await pending_requests.find_starts(tx, [run_id]))
            run_exists = await run_queries.find(tx, run_id) is not None
            if not run_exists and not has_pending_start:
                raise run_not_found(run_id)
            await audit.record(tx, [audit_entry])
            if run_exists or not await stranded_starts.cancel_start(tx, run_id, audit_entry.id):
                await _record_request(tx, audit_entry, Cancel(operator_name, reason))
        _print_outcome(
            await _wait_for_outcome(database, audit_entry, settings.client_timeout), as_json=as_json
        )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOptions:
    """Which incidents to resolve at once, how fast, and whether to ask first."""

    all_open: Annotated[bool, Parameter(name="--all", help="All open ones.")] = False
    dry_run: Annotated[bool, Parameter(help="Only show them.")] = False
    yes: Annotated[bool, Parameter(help="Do not ask for confirmation.")] = False
    rate: Annotated[str | None, Parameter(help="At most this many: 5/s, 30/m or 100/h.")] = None
    limit: Annotated[int, Parameter(help="Only the oldest N, at most 100000.")] = 10_000


DEFAULT_BULK_OPTIONS = BulkOptions()
BULK_LIMIT_MAX = 100_000
"""Incidents that one command resolves; each takes a kilobyte of memory."""


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
    Resolve an incident, or all incidents with a cause, a step, a saga or an age in common.

    INCIDENT is RUN/NUMBER as `incidents` shows it, or RUN if it has one open incident. Without
    INCIDENT, select many with --cause, --step, --saga, --older-than or --all; exit 7 if some of
    them were refused.
    """
    incident_id, action = _parse_words(incident_and_action)
    if result is not None and action is not Resolution.COMPLETE:
        raise ConfigurationError(f"--result goes with complete, not with {action}.")
    result_data = None if result is None else parse_json(result, "--result")
    request = ResolutionRequest(action, operator_or_login_name(operator), reason, result_data)
    is_bulk = bulk_options.all_open or incident_filter != NO_INCIDENT_FILTER
    if is_bulk == (incident_id is not None):
        raise ConfigurationError(
            "Name one incident, or select many with --cause, --step, --saga, --older-than or --all."
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
            "Name one incident. To resolve many, select them with --cause, --step or --saga."
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
                id=str(uuid7()),
                operator=request.operator,
                action=ActionKind(request.action.value),
                reason=request.reason,
                run_id=stored.run_id,
                target=format_incident_id(stored),
            )
            await audit.record(tx, [audit_entry])
            await _record_request(tx, audit_entry, trigger)
        _print_outcome(
            await _wait_for_outcome(database, audit_entry, settings.client_timeout), as_json=as_json
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
    """Return the command for the next incidents; RESULT stands for the result, which is long."""
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
    """Record the request that a worker decides for an action in the audit log."""
    assert audit_entry.run_id is not None, "these actions are about a run"
    kind, body = serialize_trigger(trigger)
    await checked_requests.record_operator_requests(
        tx, [NewRequest(kind=kind, run_id=audit_entry.run_id, body=body, audit_id=audit_entry.id)]
    )


async def _wait_for_outcome(
    database: TransactionSource, audit_entry: OperatorAction, seconds: float
) -> AuditRecord:
    """Poll until a worker has written the outcome; the engine does not use NOTIFY."""
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
            f"No worker has decided it in {seconds:g} seconds. It is recorded, and the next worker"
            " that has the run's saga decides it. Check with `saga-engine show"
            f" {audit_entry.run_id}`."
        ) from None


def _print_outcome(decided: AuditRecord, *, as_json: bool) -> None:
    if decided.outcome is not AuditOutcome.ACCEPTED:
        raise Conflict(f"Refused: {decided.message}")
    if as_json:
        print_json(
            {
                "run_id": decided.run_id,
                "action": decided.action,
                "target": decided.target,
                "outcome": decided.outcome,
                "message": decided.message,
            }
        )
    else:
        print_line(
            format_cell(f"The {decided.action} is accepted. {decided.message or ''}".strip())
        )
