"""
`saga-engine resolve` for many incidents at once: chosen by what they have in common.

The incidents are counted and shown first, and a person agrees. Then they are recorded in bounded
portions, each in one transaction and not before the portion before it is decided, so that a worker
is never flooded and an interruption leaves nothing half done. With a rate, a portion waits for its
turn.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saga_engine.cli.incidents import format_incident_id
from saga_engine.cli.output import print_json, print_line, print_stderr, print_table
from saga_engine.cli.paging import command_line
from saga_engine.decider.triggers import ResolveIncident, serialize_trigger
from saga_engine.errors import ConfigurationError, TimedOut
from saga_engine.identifiers import uuid7
from saga_engine.payload.encryption import PayloadEncryption, reply_associated_data
from saga_engine.payload.limits import DEFAULT_LIMITS, BodyLimits
from saga_engine.payload.payload import limit_problem
from saga_engine.postgres.statement import TransactionSource
from saga_engine.store import audit, checked_requests, incidents
from saga_engine.store.audit import AuditRecord, OperatorAction
from saga_engine.store.bounded_count import BoundedCount
from saga_engine.store.incidents import IncidentFilter, StoredIncident
from saga_engine.store.pending_requests import NewRequest
from saga_engine.vocabulary import Json, Resolution

BATCH_SIZE = 100
"""Incidents recorded in one transaction."""
PAGE_SIZE = 1000
"""Incidents read in one statement."""
POLL_INTERVAL = 0.1
"""Seconds between looks for the verdicts of a portion; a worker decides in about as often."""
EXIT_PARTIAL_FAILURE = 7

NOT_RECORDED = "not recorded"
UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class ResolutionRequest:
    """What is to be done to each incident, by whom and why; `result` goes with complete."""

    action: Resolution
    operator: str
    reason: str
    result: Json = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RateLimiter:
    """
    How fast portions follow each other: `per_second` incidents, None for as fast as decided.

    `clock` and `sleep` are those of the event loop.
    """

    per_second: float | None = None
    now: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    @property
    def batch_size(self) -> int:
        """Incidents at once: no more than one second's."""
        return (
            BATCH_SIZE if self.per_second is None else min(BATCH_SIZE, max(1, int(self.per_second)))
        )

    async def wait(self, started_at: float, resolved_count: int) -> None:
        """Wait until the next portion may be recorded, *done* incidents after *began*."""
        if self.per_second is not None and resolved_count:
            await self.sleep(max(0.0, started_at + resolved_count / self.per_second - self.now()))


@dataclass(frozen=True, slots=True)
class ResolutionOutcome:
    """What became of one incident: accepted, refused, undecided or not recorded, and a sentence."""

    incident: StoredIncident
    outcome: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class IncidentSelection:
    """The incidents that a command takes, and how many are chosen without its limit."""

    incidents: Sequence[StoredIncident]
    total: BoundedCount

    @property
    def has_more(self) -> bool:
        """Whether the limit leaves some."""
        return not self.total.exact or self.total.count > len(self.incidents)

    @property
    def description(self) -> str:
        """How many there are, and of how many where the limit leaves some."""
        of_total = f" of {self.total.display}" if self.has_more else ""
        return f"{len(self.incidents):,}{of_total} incidents"


def parse_rate(text: str) -> float:
    """
    Read a rate, as incidents per second: 5/s, 30/m, or a number for each second.

    Raises:
        ConfigurationError: it is something else, or not above 0.
    """
    number, _, unit = text.partition("/")
    try:
        per_second = float(number) / {"": 1, "s": 1, "m": 60, "h": 3600}[unit]
    except (ValueError, KeyError):
        per_second = 0.0
    if not 0 < per_second <= 1e6:
        raise ConfigurationError("--rate is a number a second, minute or hour: 5/s, 30/m or 100/h.")
    return per_second


async def select_incidents(
    database: TransactionSource, criteria: IncidentFilter, limit: int, count_limit: int
) -> IncidentSelection:
    """
    Read the open incidents that are meant, the oldest first, up to *limit*.

    Args:
        most: how many are counted, if that is more than *limit*.
    """
    selected: list[StoredIncident] = []
    async with database.transaction() as tx:
        total = await incidents.count(tx, criteria, max(limit, count_limit))
    while len(selected) < limit:
        page_size = min(PAGE_SIZE, limit - len(selected))
        last = selected[-1] if selected else None
        async with database.transaction() as tx:
            page = await incidents.read_page(tx, criteria, limit=page_size, after=last)
        selected += page
        if len(page) < page_size:
            break
    return IncidentSelection(selected, total)


def count_by_group(incidents_found: Sequence[StoredIncident]) -> list[tuple[str, str, str, int]]:
    """Count incidents by cause, step and saga, the largest group first."""
    counts = Counter((each.cause, each.step, each.saga) for each in incidents_found)
    return [(*group, count) for group, count in counts.most_common()]


def print_next_command(selection: IncidentSelection, command: Sequence[str]) -> None:
    """Say on stderr that the limit left some, and the command for the next ones."""
    if selection.has_more:
        print_stderr(
            f"These are the oldest {selection.description} (--limit). For the next ones:"
            f" {command_line(*command)}"
        )


def confirm_resolution(
    selection: IncidentSelection, request: ResolutionRequest, *, yes: bool
) -> bool:
    """
    Show what would be done, and ask whether to go on.

    Raises:
        ConfigurationError: without a terminal there is no one to ask.
    """
    for cause, step, saga, count in count_by_group(selection.incidents):
        print_stderr(f"{count} of saga {saga}, step {step}: {cause}")
    if yes or not selection.incidents:
        return True
    question = f"{request.action.capitalize()} {selection.description}?"
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} Add --yes to do it, or --dry-run to see them only.")
    print_stderr(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def build_resolve_trigger(
    incident: StoredIncident,
    request: ResolutionRequest,
    encryption: PayloadEncryption,
    limits: BodyLimits,
) -> ResolveIncident:
    """
    What is asked of one incident, with the result sealed for its place.

    Raises:
        ConfigurationError: the result is beyond a limit.
    """
    associated_data = reply_associated_data(incident.run_id, incident.step, incident.direction)
    encrypted = encryption.encrypt(request.result, associated_data)
    problem = limit_problem(encrypted, limits)
    if problem:
        raise ConfigurationError(f"--result cannot be kept. {problem}")
    return ResolveIncident(
        incident.number, request.action, request.operator, request.reason, encrypted
    )


class BulkResolver:
    """Resolves many incidents as *asked*; a portion is given *patience* seconds to be decided."""

    def __init__(
        self,
        database: TransactionSource,
        request: ResolutionRequest,
        encryption: PayloadEncryption,
        verdict_timeout: float,
        limits: BodyLimits = DEFAULT_LIMITS,
    ) -> None:
        self._database = database
        self._request = request
        self._encryption = encryption
        self._limits = limits
        self._verdict_timeout = verdict_timeout

    async def resolve(
        self,
        selected: Sequence[StoredIncident],
        rate_limiter: RateLimiter,
        on_progress: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> list[ResolutionOutcome]:
        """Resolve them; once a portion is not decided in time, what is left is not recorded."""
        outcomes: list[ResolutionOutcome] = []
        started_at, batch_size = rate_limiter.now(), rate_limiter.batch_size
        for start in range(0, len(selected), batch_size):
            await rate_limiter.wait(started_at, start)
            outcomes += await self._resolve_batch(selected[start : start + batch_size])
            on_progress(len(outcomes), len(selected))
            if outcomes[-1].outcome == UNDECIDED:
                break
        remaining = selected[len(outcomes) :]
        return [*outcomes, *(ResolutionOutcome(each, NOT_RECORDED) for each in remaining)]

    async def _resolve_batch(self, batch: Sequence[StoredIncident]) -> list[ResolutionOutcome]:
        by_audit_id = {str(uuid7()): each for each in batch}
        async with self._database.transaction() as tx:
            await audit.record(
                tx, [self._audit_entry(audit_id, each) for audit_id, each in by_audit_id.items()]
            )
            await checked_requests.record_operator_requests(
                tx,
                [self._pending_request(audit_id, each) for audit_id, each in by_audit_id.items()],
            )
        verdicts = await self._wait_for_verdicts(list(by_audit_id))
        outcomes = [
            _outcome_of(each, verdicts.get(audit_id)) for audit_id, each in by_audit_id.items()
        ]
        return sorted(outcomes, key=lambda each: each.outcome == UNDECIDED)

    def _audit_entry(self, audit_id: str, incident: StoredIncident) -> OperatorAction:
        request = self._request
        return OperatorAction(
            *(
                audit_id,
                request.operator,
                request.action.value,
                request.reason,
                incident.run_id,
                format_incident_id(incident),
            )
        )

    def _pending_request(self, audit_id: str, incident: StoredIncident) -> NewRequest:
        trigger = build_resolve_trigger(incident, self._request, self._encryption, self._limits)
        kind, body = serialize_trigger(trigger)
        return NewRequest(kind, incident.run_id, body, audit_id=audit_id)

    async def _wait_for_verdicts(self, audit_ids: Sequence[str]) -> Mapping[str, AuditRecord]:
        """Wait until all are decided, or for `patience` seconds."""
        verdicts: dict[str, AuditRecord] = {}
        try:
            async with asyncio.timeout(self._verdict_timeout):
                while len(verdicts) < len(audit_ids):
                    remaining = [audit_id for audit_id in audit_ids if audit_id not in verdicts]
                    async with self._database.transaction() as tx:
                        verdicts |= {
                            each.id: each for each in await audit.find_decided(tx, remaining)
                        }
                    if len(verdicts) < len(audit_ids):
                        await asyncio.sleep(POLL_INTERVAL)
        except TimeoutError:
            pass  # those are recorded and not decided
        return verdicts


def _outcome_of(incident: StoredIncident, verdict: AuditRecord | None) -> ResolutionOutcome:
    if verdict is None:
        return ResolutionOutcome(
            incident, UNDECIDED, "It is recorded, and a worker decides it later."
        )
    return ResolutionOutcome(incident, verdict.outcome or UNDECIDED, verdict.message or "")


def print_progress(decided_count: int, total: int) -> None:
    """Say how far it is, where there is more than one portion."""
    if total > BATCH_SIZE or decided_count < total:
        print_stderr(f"{decided_count} of {total} decided")


def print_preview(
    selection: IncidentSelection, request: ResolutionRequest, *, as_json: bool
) -> None:
    """Print what would be done."""
    groups = count_by_group(selection.incidents)
    if as_json:
        groups_json = [
            {"cause": cause, "step": step, "saga": saga, "count": number}
            for cause, step, saga, number in groups
        ]
        number = {"incidents": len(selection.incidents), **_total_json(selection)}
        print_json({"action": request.action, **number, "groups": groups_json})
        return
    print_table(("cause", "step", "saga", "incidents"), groups, empty="No open incident is meant.")
    if selection.incidents:
        print_stderr(f"{selection.description}. Nothing is done.")


def _total_json(selection: IncidentSelection) -> dict[str, Any]:
    """Write how many are chosen without the limit."""
    return {"total": selection.total.count, "total_exact": selection.total.exact}


def print_outcomes(
    outcomes: Sequence[ResolutionOutcome],
    request: ResolutionRequest,
    selection: IncidentSelection,
    *,
    as_json: bool,
) -> int:
    """
    Print what became of each; the exit code.

    Raises:
        TimedOut: none was refused, but a worker has not decided all of them.
    """
    counts = Counter(each.outcome for each in outcomes)
    if as_json:
        print_json({**_outcomes_json(outcomes, request, counts), **_total_json(selection)})
    else:
        print_table(
            ("incident", "outcome", "message"),
            [(format_incident_id(each.incident), each.outcome, each.message) for each in outcomes],
            empty="No open incident is meant.",
        )
        parts = [f"{count} {outcome}" for outcome, count in counts.items()]
        if parts:
            print_line(", ".join(parts))
    if counts["refused"]:
        return EXIT_PARTIAL_FAILURE
    if counts[UNDECIDED] or counts[NOT_RECORDED]:
        raise TimedOut(
            f"No worker has decided {counts[UNDECIDED]} incidents in time; those are recorded."
            f" {counts[NOT_RECORDED]} are not recorded: give the same command again."
        )
    return 0


def _outcomes_json(
    outcomes: Sequence[ResolutionOutcome], request: ResolutionRequest, counts: Counter[str]
) -> dict[str, Any]:
    return {
        "action": request.action,
        "accepted": counts["accepted"],
        "refused": counts["refused"],
        "undecided": counts[UNDECIDED],
        "not_recorded": counts[NOT_RECORDED],
        "outcomes": [
            {
                "id": format_incident_id(each.incident),
                "run_id": each.incident.run_id,
                "outcome": each.outcome.replace(" ", "_"),
                "message": each.message,
            }
            for each in outcomes
        ],
    }
