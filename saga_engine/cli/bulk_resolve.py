"""
`saga-engine resolve` for many incidents: select them, and record the resolutions in batches.

A batch is one transaction, and the next batch is recorded only after a worker has decided this one.
So workers are not flooded, and an interrupted command leaves no batch half done. With a rate, the
next batch also waits until the rate allows it. `bulk_output` prints the preview and the outcomes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from saga_engine.cli.incidents import format_incident_id
from saga_engine.decider.triggers import ResolveIncident
from saga_engine.errors import ConfigurationError
from saga_engine.identifiers import uuid7
from saga_engine.payload.encryption import PayloadEncryption, reply_associated_data
from saga_engine.payload.limits import DEFAULT_LIMITS, BodyLimits
from saga_engine.payload.payload import limit_problem
from saga_engine.postgres.statement import TransactionSource
from saga_engine.store import audit, checked_requests, incidents
from saga_engine.store.audit import ActionKind, AuditRecord, OperatorAction
from saga_engine.store.bounded_count import BoundedCount
from saga_engine.store.incidents import IncidentFilter, StoredIncident
from saga_engine.store.pending_requests import NewRequest
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.vocabulary import Json, Resolution

BATCH_SIZE = 100
"""Incidents recorded in one transaction."""
PAGE_SIZE = 1000
"""Incidents read by one statement."""
POLL_INTERVAL = 0.1
"""Seconds between queries for the outcomes; a worker takes recorded requests about as often."""


class ResolutionResult(StrEnum):
    """What became of one incident, as `resolve --json` names it."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNDECIDED = "undecided"
    NOT_RECORDED = "not_recorded"

    @property
    def text(self) -> str:
        """The result for a table."""
        return self.value.replace("_", " ")


@dataclass(frozen=True, slots=True)
class ResolutionRequest:
    """How to resolve each incident, and who asks for it and why; `result` is for `complete`."""

    action: Resolution
    operator: str
    reason: str
    result: Json = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RateLimiter:
    """
    Limits how many incidents are recorded per second; None: as fast as workers decide them.

    `now` and `sleep` are those of the event loop.
    """

    per_second: float | None = None
    now: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    @property
    def batch_size(self) -> int:
        """Incidents in one batch: at most those of one second."""
        return (
            BATCH_SIZE if self.per_second is None else min(BATCH_SIZE, max(1, int(self.per_second)))
        )

    async def wait(self, started_at: float, resolved_count: int) -> None:
        """Wait until the rate allows more than *resolved_count* incidents since *started_at*."""
        if self.per_second is not None and resolved_count:
            await self.sleep(max(0.0, started_at + resolved_count / self.per_second - self.now()))


@dataclass(frozen=True, slots=True)
class ResolutionOutcome:
    """What became of one incident, with the worker's message."""

    incident: StoredIncident
    result: ResolutionResult
    message: str = ""


@dataclass(frozen=True, slots=True)
class IncidentSelection:
    """The incidents that a command resolves, and how many match without its `--limit`."""

    incidents: Sequence[StoredIncident]
    total: BoundedCount

    @property
    def has_more(self) -> bool:
        """Whether more incidents match than the limit allows."""
        return not self.total.exact or self.total.count > len(self.incidents)

    @property
    def description(self) -> str:
        """The number of incidents, and the total if it is larger."""
        of_total = f" of {self.total.display}" if self.has_more else ""
        return f"{len(self.incidents):,}{of_total} incidents"


def parse_rate(text: str) -> float:
    """
    Read a rate: `5/s`, `30/m`, `100/h`, or a number for incidents per second.

    Raises:
        ConfigurationError: it is not a rate, or not above 0.
    """
    number, _, unit = text.partition("/")
    try:
        per_second = float(number) / {"": 1, "s": 1, "m": 60, "h": 3600}[unit]
    except (ValueError, KeyError):
        per_second = 0.0
    if not 0 < per_second <= 1e6:
        raise ConfigurationError(
            "--rate is a number per second, minute or hour: 5/s, 30/m or 100/h."
        )
    return per_second


async def select_incidents(
    database: TransactionSource, criteria: IncidentFilter, limit: int, count_limit: int
) -> IncidentSelection:
    """
    Read the open incidents that match, the oldest first, up to *limit*.

    Args:
        count_limit: the largest total that is counted, if it is above *limit*.
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


def build_resolve_trigger(
    incident: StoredIncident,
    request: ResolutionRequest,
    encryption: PayloadEncryption,
    limits: BodyLimits,
) -> ResolveIncident:
    """
    Make the trigger that resolves one incident; its result is encrypted for this step of this run.

    Raises:
        ConfigurationError: the result exceeds a limit.
    """
    associated_data = reply_associated_data(incident.run_id, incident.step, incident.direction)
    encrypted = encryption.encrypt(request.result, associated_data)
    problem = limit_problem(encrypted, limits)
    if problem:
        raise ConfigurationError(f"--result cannot be stored. {problem}")
    return ResolveIncident(
        incident_number=incident.number,
        resolution=request.action,
        operator=request.operator,
        reason=request.reason,
        result=encrypted,
    )


class BulkResolver:
    """Resolves many incidents; workers have *outcome_timeout* seconds to decide a batch."""

    def __init__(
        self,
        database: TransactionSource,
        request: ResolutionRequest,
        encryption: PayloadEncryption,
        outcome_timeout: float,
        limits: BodyLimits = DEFAULT_LIMITS,
    ) -> None:
        self._database = database
        self._request = request
        self._encryption = encryption
        self._limits = limits
        self._outcome_timeout = outcome_timeout

    async def resolve(
        self,
        selected: Sequence[StoredIncident],
        rate_limiter: RateLimiter,
        on_progress: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> list[ResolutionOutcome]:
        """Resolve the incidents; after a batch that is not decided in time, record no more."""
        outcomes: list[ResolutionOutcome] = []
        started_at, batch_size = rate_limiter.now(), rate_limiter.batch_size
        for start in range(0, len(selected), batch_size):
            await rate_limiter.wait(started_at, start)
            outcomes += await self._resolve_batch(selected[start : start + batch_size])
            on_progress(len(outcomes), len(selected))
            if outcomes[-1].result is ResolutionResult.UNDECIDED:
                break
        remaining = selected[len(outcomes) :]
        return [
            *outcomes,
            *(ResolutionOutcome(each, ResolutionResult.NOT_RECORDED) for each in remaining),
        ]

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
        decided = await self._wait_for_outcomes(list(by_audit_id))
        outcomes = [
            _outcome_of(each, decided.get(audit_id)) for audit_id, each in by_audit_id.items()
        ]
        return sorted(outcomes, key=lambda each: each.result is ResolutionResult.UNDECIDED)

    def _audit_entry(self, audit_id: str, incident: StoredIncident) -> OperatorAction:
        return OperatorAction(
            id=audit_id,
            operator=self._request.operator,
            action=ActionKind(self._request.action.value),
            reason=self._request.reason,
            run_id=incident.run_id,
            target=format_incident_id(incident),
        )

    def _pending_request(self, audit_id: str, incident: StoredIncident) -> NewRequest:
        trigger = build_resolve_trigger(incident, self._request, self._encryption, self._limits)
        kind, body = serialize_trigger(trigger)
        return NewRequest(kind=kind, run_id=incident.run_id, body=body, audit_id=audit_id)

    async def _wait_for_outcomes(self, audit_ids: Sequence[str]) -> Mapping[str, AuditRecord]:
        """Wait until all are decided, or for `outcome_timeout` seconds."""
        decided: dict[str, AuditRecord] = {}
        try:
            async with asyncio.timeout(self._outcome_timeout):
                while len(decided) < len(audit_ids):
                    remaining = [audit_id for audit_id in audit_ids if audit_id not in decided]
                    async with self._database.transaction() as tx:
                        decided |= {
                            each.id: each for each in await audit.find_decided(tx, remaining)
                        }
                    if len(decided) < len(audit_ids):
                        await asyncio.sleep(POLL_INTERVAL)
        except TimeoutError:
            pass  # the missing ones are recorded; a worker decides them later
        return decided


def _outcome_of(incident: StoredIncident, record: AuditRecord | None) -> ResolutionOutcome:
    if record is None or record.outcome is None:
        return ResolutionOutcome(
            incident,
            ResolutionResult.UNDECIDED,
            "It is recorded, and a worker decides it later.",
        )
    return ResolutionOutcome(incident, ResolutionResult(record.outcome), record.message or "")
