"""`saga-engine incidents`: the incidents that wait for an operator; each is named RUN/NUMBER."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.cli.database import open_database, parse_run_id
from saga_engine.cli.json_argument import parse_duration
from saga_engine.cli.output import AsJson, print_json, print_stderr, print_table
from saga_engine.cli.paging import (
    Page,
    check_limit,
    command_line,
    make_page,
    option_words,
    page_json,
    print_page_summary,
)
from saga_engine.errors import ConfigurationError, Conflict, NotFound
from saga_engine.postgres.statement import Transaction
from saga_engine.settings import Settings
from saga_engine.store import incidents as store
from saga_engine.store.bounded_count import BoundedCount
from saga_engine.store.incidents import IncidentFilter, IncidentGroup, StoredIncident
from saga_engine.vocabulary import IncidentCause, Resolution

INCIDENTS_MAX = 10_000
"""Incidents in one page, and the most that are read of one run, which has a handful."""
TABLE_COLUMNS = ("incident", "saga", "key", "step", "direction", "cause", "opened", "details")
NUMBER_DIGITS_MAX = 9
"""Digits of the number of an incident."""
STATE_OPEN = "open"
"""The state of an incident that waits for an operator; the other state is "closed"."""

DEFAULT_RESOLUTIONS = {IncidentCause.NOT_COMPENSATABLE.value: Resolution.COMPLETE}
"""The usual resolution for a cause; for all others it is retry (docs/semantics.md, Incidents)."""


class GroupBy(StrEnum):
    """What incidents are grouped by."""

    CAUSE = "cause"
    STEP = "step"
    SAGA = "saga"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentFilterOptions:
    """Selects incidents by cause, step, saga and age."""

    cause: Annotated[IncidentCause | None, Parameter(help="Only those with this cause.")] = None
    step: Annotated[str | None, Parameter(help="Only those of this step.")] = None
    saga: Annotated[str | None, Parameter(help="Only those of this saga.")] = None
    older_than: Annotated[
        str | None, Parameter(help="Only those opened at least this long ago: 90s, 10m, 2h, 1d.")
    ] = None

    def to_criteria(self, *, resolved: bool = False) -> IncidentFilter:
        """Return the filter for the store; raise ConfigurationError for an invalid duration."""
        min_age = (
            None if self.older_than is None else parse_duration(self.older_than, "--older-than")
        )
        return IncidentFilter(
            saga=self.saga,
            cause=self.cause,
            step=self.step,
            older_than=min_age,
            include_resolved=resolved,
        )

    @property
    def option_values(self) -> dict[str, object]:
        """The options for a command line."""
        return {
            "--cause": self.cause,
            "--step": self.step,
            "--saga": self.saga,
            "--older-than": self.older_than,
        }


NO_INCIDENT_FILTER = IncidentFilterOptions()


async def list_incidents(
    *,
    include_resolved: Annotated[bool, Parameter(name="--all", help="Closed ones too.")] = False,
    incident_filter: IncidentFilterOptions = NO_INCIDENT_FILTER,
    group_by: Annotated[
        list[GroupBy] | None,
        # Without json_list=False cyclopts would parse a bracket as JSON, to any depth.
        Parameter(help="Count them by cause, step or saga; may be repeated.", json_list=False),
    ] = None,
    limit: Annotated[int, Parameter(help="How many, at most 10000.")] = 100,
    after: Annotated[str | None, Parameter(help="The last incident of the previous page.")] = None,
    as_json: AsJson = False,
) -> None:
    """List incidents, the oldest first; `resolve` acts on one of them, or on many at once."""
    check_limit(limit, INCIDENTS_MAX)
    criteria, settings = incident_filter.to_criteria(resolved=include_resolved), Settings.load()
    async with open_database(settings) as database, database.transaction() as tx:
        total = await store.count(tx, criteria, settings.max_listing_total)
        if group_by:
            group_names = list(dict.fromkeys(each.value for each in group_by))
            groups = await store.count_groups(tx, criteria, group_names, limit=limit + 1)
            _print_groups(
                make_page(groups, limit, None), total, group_names, incident_filter, as_json=as_json
            )
            return
        last = await _find_incident(tx, after) if after else None
        rows = await store.read_page(tx, criteria, limit=limit + 1, after=last)
    options = {"--all": include_resolved, **incident_filter.option_values, "--limit": limit}
    _print_incidents(make_page(rows, limit, total), option_words(options), as_json=as_json)


def _print_incidents(page: Page[StoredIncident], options: Sequence[str], *, as_json: bool) -> None:
    cursor = format_incident_id(page.rows[-1]) if page.rows else None
    if as_json:
        incidents_json = [incident_json(each) for each in page.rows]
        print_json({"incidents": incidents_json, **page_json(page, cursor)})
        return
    print_table(
        TABLE_COLUMNS,
        [_table_row(each) for each in page.rows],
        empty="No incident waits for an operator.",
    )
    print_page_summary(page, "incidents", ["incidents", *options], cursor)


def _table_row(incident: StoredIncident) -> tuple[object, ...]:
    return (
        format_incident_id(incident),
        incident.saga,
        incident.key,
        incident.step,
        incident.direction,
        incident.cause,
        incident.opened_at,
        incident_resolution_text(incident) or incident.message,
    )


def _print_groups(
    page: Page[IncidentGroup],
    total: BoundedCount,
    group_names: Sequence[str],
    incident_filter: IncidentFilterOptions,
    *,
    as_json: bool,
) -> None:
    if as_json:
        groups_json = [
            {
                **each.shared_values,
                "count": each.count,
                "oldest": each.oldest_opened_at,
                "example": each.example,
                "resolve": _resolve_command(each, incident_filter),
            }
            for each in page.rows
        ]
        totals = {"total": total.count, "total_exact": total.exact, "more_groups": page.has_more}
        print_json({"group_by": list(group_names), "groups": groups_json, **totals})
        return
    print_table(
        (*group_names, "incidents", "oldest", "example", "resolve command"),
        [
            (
                *(each.shared_values[name] for name in group_names),
                each.count,
                each.oldest_opened_at,
                each.example,
                _resolve_command(each, incident_filter),
            )
            for each in page.rows
        ],
        empty="No incident waits for an operator.",
    )
    if page.rows:
        more_hint = " There are more groups: --limit shows them." if page.has_more else ""
        print_stderr(f"{len(page.rows)} groups of {total.display} incidents.{more_hint}")


def _resolve_command(group: IncidentGroup, incident_filter: IncidentFilterOptions) -> str:
    """Return the usual command to resolve a group, with --dry-run, which only shows its effect."""
    option_values = {
        **incident_filter.option_values,
        **{f"--{name}": value for name, value in group.shared_values.items()},
    }
    action = DEFAULT_RESOLUTIONS.get(group.shared_values.get("cause", ""), Resolution.RETRY)
    return command_line(
        "resolve", *option_words(option_values), action, "--reason", "WHY", "--dry-run"
    )


async def _find_incident(tx: Transaction, incident_id: str) -> StoredIncident:
    run_text, separator, number = incident_id.partition("/")
    stored = (
        await store.find(tx, parse_run_id(run_text), _parse_number(number)) if separator else None
    )
    if stored is None:
        raise NotFound(
            f"There is no incident {incident_id!r} for --after. Omit --after for the first page."
        )
    return stored


def format_incident_id(incident: StoredIncident) -> str:
    """Return the id of an incident on the command line: RUN/NUMBER."""
    return f"{incident.run_id}/{incident.number}"


def format_resolution(resolution: str | None, operator: str | None, reason: str | None) -> str:
    """Return how, by whom and why an incident was closed; without a resolution by the engine."""
    action_text = f"{resolution or 'closed'} by {operator}"
    return f"{action_text}: {reason}" if reason else action_text


def incident_resolution_text(incident: StoredIncident) -> str | None:
    """Return how it was closed; None while it is open."""
    if incident.resolved_at is None:
        return None
    return format_resolution(incident.resolution, incident.operator, incident.reason)


def incident_json(incident: StoredIncident) -> dict[str, Any]:
    """Return an incident for a JSON document."""
    return {
        "id": format_incident_id(incident),
        "run_id": incident.run_id,
        "number": incident.number,
        "saga": incident.saga,
        "version": incident.version,
        "key": incident.key,
        "step": incident.step,
        "direction": incident.direction,
        "cause": incident.cause,
        "message": incident.message,
        "state": STATE_OPEN if incident.resolved_at is None else "closed",
        "opened_at": incident.opened_at,
        "resolved_at": incident.resolved_at,
        "resolution": incident.resolution,
        "operator": incident.operator,
        "reason": incident.reason,
    }


async def find_open_incident(tx: Transaction, incident_id: str) -> StoredIncident:
    """
    Find the open incident named RUN/NUMBER, or RUN if the run has one open incident.

    Raises:
        NotFound: there is no such incident.
        Conflict: it is resolved, or RUN has several open incidents.
    """
    run_text, separator, number = incident_id.partition("/")
    run_id = parse_run_id(run_text)
    run_incidents = await store.read_page(tx, run_id=run_id, limit=INCIDENTS_MAX)
    if separator:
        return _open_incident_numbered(run_incidents, incident_id, _parse_number(number))
    open_incidents = [each for each in run_incidents if each.resolved_at is None]
    if not open_incidents:
        raise NotFound(f"Run {run_id} has no open incident; there is nothing to resolve.")
    if len(open_incidents) > 1:
        open_ids = ", ".join(map(format_incident_id, open_incidents))
        raise Conflict(
            f"Run {run_id} has {len(open_incidents)} open incidents. Name one of {open_ids}."
        )
    return open_incidents[0]


def _parse_number(text: str) -> int:
    if not text.isdecimal() or len(text) > NUMBER_DIGITS_MAX:
        raise ConfigurationError(f"{text!r} is not the number of an incident, as in RUN/1.")
    return int(text)


def _open_incident_numbered(
    run_incidents: list[StoredIncident], incident_id: str, number: int
) -> StoredIncident:
    for each in run_incidents:
        if each.number == number:
            if each.resolved_at is not None:
                raise Conflict(
                    f"Incident {format_incident_id(each)} is resolved already:"
                    f" {incident_resolution_text(each)}."
                )
            return each
    raise NotFound(
        f"There is no incident {incident_id}. `saga-engine incidents` lists the open ones."
    )
