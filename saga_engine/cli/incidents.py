"""`saga-engine incidents`: what waits for a person; each is named RUN/NUMBER."""

from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.cli.output import AsJson, document, table
from saga_engine.cli.stored import run_id_of, transaction
from saga_engine.errors import ConfigurationError, Conflict, NotFound
from saga_engine.store import incidents as store
from saga_engine.store.database import Transaction
from saga_engine.store.incidents import StoredIncident

PER_RUN = 10_000
"""Incidents of one run that are looked through; a run has a handful."""
DIGITS_MAX = 9
"""Of the number of an incident."""


async def incidents(
    *,
    everything: Annotated[bool, Parameter(name="--all", help="The resolved ones as well.")] = False,
    saga: Annotated[str | None, Parameter(help="Only those of this saga.")] = None,
    limit: Annotated[int, Parameter(help="How many, at most 10000.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List incidents, the oldest first; `resolve` acts on one."""
    if not 1 <= limit <= PER_RUN:
        raise ConfigurationError(f"--limit is 1 to {PER_RUN}.")
    async with transaction() as tx:
        found = await store.listing(tx, saga=saga, resolved=everything, limit=limit)
    if as_json:
        document({"incidents": [incident_json(each) for each in found]})
        return
    table(
        ("incident", "saga", "key", "step", "direction", "cause", "opened", "what to know"),
        [
            (
                *(name_of(each), each.saga, each.key, each.step, each.direction, each.cause),
                *(each.opened_at, each.resolution or each.message),
            )
            for each in found
        ],
        empty="Nothing waits for a person.",
    )


def name_of(incident: StoredIncident) -> str:
    """Name an incident for the command line."""
    return f"{incident.run_id}/{incident.number}"


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
                raise Conflict(
                    f"Incident {name_of(each)} is resolved already: {each.resolution} by {each.by}."
                )
            return each
    raise NotFound(f"There is no incident {typed}. `saga-engine incidents` lists the open ones.")
