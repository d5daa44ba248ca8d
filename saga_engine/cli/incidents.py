"""`saga-engine incidents`: what waits for a person; each is named RUN/NUMBER."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.cli.database import database, run_id_of
from saga_engine.cli.json_argument import duration_of
from saga_engine.cli.output import AsJson, document, say, table
from saga_engine.cli.paging import (
    Page,
    check_limit,
    command_line,
    options,
    page_json,
    page_of,
    tell_page,
)
from saga_engine.errors import ConfigurationError, Conflict, NotFound
from saga_engine.postgres.statement import Transaction
from saga_engine.settings import Settings
from saga_engine.store import incidents as store
from saga_engine.store.bounded_count import Total
from saga_engine.store.incidents import Choice, IncidentGroup, StoredIncident
from saga_engine.vocabulary import IncidentCause, Resolution

PER_RUN = 10_000
"""Incidents of one run that are looked through; a run has a handful."""
DIGITS_MAX = 9
"""Of the number of an incident."""
OPEN = "open"
"""The state of an incident that waits for a person; the other is "closed"."""

USUAL = {IncidentCause.NOT_COMPENSATABLE.value: Resolution.COMPLETE}
"""The usual resolution of a cause; of all others it is retry (docs/semantics.md, "Incidents")."""


class By(StrEnum):
    """What incidents may have in common."""

    CAUSE = "cause"
    STEP = "step"
    SAGA = "saga"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which incidents are meant, by what they have in common."""

    cause: Annotated[IncidentCause | None, Parameter(help="Only those of this cause.")] = None
    step: Annotated[str | None, Parameter(help="Only those of this step.")] = None
    saga: Annotated[str | None, Parameter(help="Only those of this saga.")] = None
    older_than: Annotated[
        str | None, Parameter(help="Only those opened at least so long ago: 90s, 10m, 2h, 1d.")
    ] = None

    def choice(self, *, resolved: bool = False) -> Choice:
        """Choose in the store; raises ConfigurationError for what is no duration."""
        age = None if self.older_than is None else duration_of(self.older_than, "--older-than")
        cause = self.cause and self.cause.value
        return Choice(
            saga=self.saga, cause=cause, step=self.step, older_than=age, resolved=resolved
        )

    @property
    def given(self) -> dict[str, object]:
        """The options, for a command line."""
        return {
            "--cause": self.cause,
            "--step": self.step,
            "--saga": self.saga,
            "--older-than": self.older_than,
        }


EVERY_OPEN_ONE = Which()


async def incidents(
    *,
    everything: Annotated[bool, Parameter(name="--all", help="The resolved ones as well.")] = False,
    which: Which = EVERY_OPEN_ONE,
    by: Annotated[
        list[By] | None,
        # Without json_list a bracket would be read as JSON, however deep it nests.
        Parameter(
            help="Count them by what they have in common; may be given several times.",
            json_list=False,
        ),
    ] = None,
    limit: Annotated[int, Parameter(help="How many, at most 10000.")] = 100,
    after: Annotated[str | None, Parameter(help="The last incident of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """List incidents, the oldest first; `resolve` acts on one, or on many at once."""
    check_limit(limit, PER_RUN)
    choice, settings = which.choice(resolved=everything), Settings.load()
    given = {"--all": everything, **which.given, "--limit": limit}
    async with database(settings) as opened, opened.transaction() as tx:
        total = await store.count(tx, choice, settings.listing_count)
        if by:
            names = list(dict.fromkeys(each.value for each in by))
            groups = await store.groups(tx, choice, names, limit=limit + 1)
            _print_groups(page_of(groups, limit, None), total, names, which, as_json=as_json)
            return
        last = await _named(tx, after) if after else None
        found = await store.listing(tx, choice, limit=limit + 1, after=last)
    page = page_of(found, limit, total)
    cursor = name_of(page.rows[-1]) if page.rows else None
    if as_json:
        shown = [incident_json(each) for each in page.rows]
        document({"incidents": shown, **page_json(page, cursor)})
        return
    table(
        ("incident", "saga", "key", "step", "direction", "cause", "opened", "what to know"),
        [
            (
                *(name_of(each), each.saga, each.key, each.step, each.direction, each.cause),
                *(each.opened_at, end_of(each) or each.message),
            )
            for each in page.rows
        ],
        empty="Nothing waits for a person.",
    )
    tell_page(page, "incidents", ["incidents", *options(given)], cursor)


def _print_groups(
    page: Page[IncidentGroup],
    total: Total,
    names: Sequence[str],
    which: Which,
    *,
    as_json: bool,
) -> None:
    if as_json:
        shown = [
            {
                **each.common,
                "count": each.count,
                "oldest": each.oldest,
                "example": each.example,
                "resolve": _command_for(each, which),
            }
            for each in page.rows
        ]
        sums = {"total": total.number, "total_exact": total.exact, "more_groups": page.following}
        document({"by": list(names), "groups": shown, **sums})
        return
    table(
        (*names, "incidents", "oldest", "example", "to resolve them"),
        [
            (
                *(each.common[name] for name in names),
                *(each.count, each.oldest, each.example, _command_for(each, which)),
            )
            for each in page.rows
        ],
        empty="Nothing waits for a person.",
    )
    if page.rows:
        more = " There are more groups: --limit shows them." if page.following else ""
        say(f"{len(page.rows)} groups of {total.text} incidents.{more}")


def _command_for(group: IncidentGroup, which: Which) -> str:
    """Write the command that resolves a group in the usual way; `--dry-run` shows what it does."""
    chosen = {**which.given, **{f"--{name}": value for name, value in group.common.items()}}
    action = USUAL.get(group.common.get("cause", ""), Resolution.RETRY)
    return command_line("resolve", *options(chosen), action, "--reason", "WHY", "--dry-run")


async def _named(tx: Transaction, typed: str) -> StoredIncident:
    run, slash, number = typed.partition("/")
    found = await store.find(tx, run_id_of(run), _number(number)) if slash else None
    if found is None:
        raise NotFound(f"There is no incident {typed!r} to go on after. Leave --after out.")
    return found


def name_of(incident: StoredIncident) -> str:
    """Name an incident for the command line."""
    return f"{incident.run_id}/{incident.number}"


def ended(resolution: str | None, by: str | None, reason: str | None) -> str:
    """Say how an incident was closed, by whom and why; without a resolution the engine did it."""
    how = f"{resolution or 'closed'} by {by}"
    return f"{how}: {reason}" if reason else how


def end_of(incident: StoredIncident) -> str | None:
    """Say how it was closed; None while it is open."""
    if incident.resolved_at is None:
        return None
    return ended(incident.resolution, incident.by, incident.reason)


def incident_json(incident: StoredIncident) -> dict[str, Any]:
    """Write an incident for a document."""
    return {
        "id": name_of(incident),
        "run_id": incident.run_id,
        "number": incident.number,
        "saga": incident.saga,
        "version": incident.version,
        "key": incident.key,
        "step": incident.step,
        "direction": incident.direction,
        "cause": incident.cause,
        "message": incident.message,
        "state": OPEN if incident.resolved_at is None else "closed",
        "opened_at": incident.opened_at,
        "resolved_at": incident.resolved_at,
        "resolution": incident.resolution,
        "by": incident.by,
        "reason": incident.reason,
    }


async def open_incident(tx: Transaction, typed: str) -> StoredIncident:
    """
    Find the open incident that RUN/NUMBER names, or RUN when it has just one.

    Raises:
        NotFound: there is none of that name.
        Conflict: it is resolved, or RUN has several.
    """
    run, slash, number = typed.partition("/")
    run_id = run_id_of(run)
    found = await store.listing(tx, run_id=run_id, limit=PER_RUN)
    if slash:
        return _numbered(found, typed, _number(number))
    waiting = [each for each in found if each.resolved_at is None]
    if not waiting:
        raise NotFound(f"Run {run_id} has no open incident; there is nothing to resolve.")
    if len(waiting) > 1:
        names = ", ".join(map(name_of, waiting))
        raise Conflict(f"Run {run_id} has {len(waiting)} open incidents. Name one of {names}.")
    return waiting[0]


def _number(typed: str) -> int:
    if not typed.isdecimal() or len(typed) > DIGITS_MAX:
        raise ConfigurationError(f"{typed!r} is no number of an incident, as in RUN/1.")
    return int(typed)


def _numbered(found: list[StoredIncident], typed: str, number: int) -> StoredIncident:
    for each in found:
        if each.number == number:
            if each.resolved_at is not None:
                raise Conflict(f"Incident {name_of(each)} is resolved already: {end_of(each)}.")
            return each
    raise NotFound(f"There is no incident {typed}. `saga-engine incidents` lists the open ones.")
