"""
How many runs of a saga are under way at once, and whose turn it is next.

A command that waits in its participant's queue for longer than its timeout is sent again although
the participant is well: the queue grows by the copies, and runs are undone for nothing. Nobody but
the engine can keep the queue short, by beginning no more than can be answered in time. A start that
comes when all places are taken is committed, answered, and waits in PostgreSQL, the oldest first.

How many places that is, the replies tell. Each that comes within a quarter of its timeout adds a
little, each that takes more than half takes three times as much away: additive, both, because a
sample comes from every run under way, so that all together they add a half, or halve (after Jain
and Chiu's rule for windows, 1989).

Not all that is late is slow. What was under way while the worker itself was cut off tells nothing.
And silence is not lateness: a process that is gone with all that it has prefetched answers nothing,
and fewer places than it has prefetched would leave no run that its commands have not trapped. So
attempts that time out take away no more than what was added.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from saga_engine.decider import events
from saga_engine.decider.run import StepStatus
from saga_engine.identifiers import invalid_run_id_reason
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import pending_requests, runs
from saga_engine.store.database import SqlAlchemyTransaction
from saga_engine.vocabulary import Outcome
from saga_engine.worker.change_set import ChangeSet, DecidedEvent
from saga_engine.worker.registry import SagaRegistry

INITIAL_SLOTS = 100
"""Places to begin with: at the default timeout of 30 s, right for 7 commands a second or more."""

MIN_SLOTS = 10
"""Places there are at the least, however late the replies: something must show that they mend."""

FAST_SHARE, SLOW_SHARE = 0.25, 0.5
"""Shares of its timeout: a reply before the first says there is room, one after the second not."""

MAX_HORIZON = timedelta(hours=1)
"""A step with a longer timeout waits for people or for days, and keeps no participant busy."""

ADMISSION_GROUP_DIVISOR = 10
"""The waiting are let in when a tenth of the places is free: one at a time costs too much."""

_ATTEMPT_RESULTS = (events.StepSucceeded, events.StepRejected, events.AttemptFailed)


class Admission:
    """
    The places of each saga, as one worker sees them; its batches share it.

    A run takes a place while something is due of it within `idle_run_threshold`, or within the
    longest timeout of its saga up to an hour, as its `wake_at` says: that is lazy, so a place may
    be free that much later, but never too early. What is committed is counted at most once in
    `poll_interval`; what this worker has let in since is added. Workers that look in the same
    moment may
    together let in a batch each too many: the bound is there for the queues' sake, not to the last
    run.
    """

    def __init__(self, registry: SagaRegistry, settings: Settings) -> None:
        self._registry = registry
        self._max_slots = settings.max_concurrent_runs
        self._max_run_id_age = timedelta(days=settings.max_run_id_age_days)
        self._max_run_id_lead = timedelta(seconds=settings.max_run_id_clock_skew)
        min_horizon = timedelta(seconds=settings.idle_run_threshold)
        self._horizons = {
            definition_id: max(min_horizon, min(_longest_timeout(saga), MAX_HORIZON))
            for definition_id, saga in registry.sagas.items()
        }
        self._refresh_interval = settings.poll_interval
        self._refreshed_at = float("-inf")
        self._slot_limits: dict[str, float] = {}
        self._slots_in_use: Mapping[str, int] = {}
        self._admitted: Counter[str] = Counter()
        self._admitted_when_counted: Counter[str] = (
            Counter()
        )  # of those let in, what is in `_taken`
        self._uncommitted: Counter[str] = Counter()  # of those, what is in transactions not over
        self._sagas_with_queue: set[str] = set()
        self.connection_lost()  # as it was before it began

    def run_id_problem(self, run_id: str, now: datetime) -> str | None:
        """Why an id cannot be that of a new run; None: it can."""
        return invalid_run_id_reason(
            UUID(run_id), now, max_age=self._max_run_id_age, max_clock_lead=self._max_run_id_lead
        )

    async def refresh(self, tx: SqlAlchemyTransaction) -> None:
        """Count what is committed, unless that is known from a moment ago."""
        now = asyncio.get_running_loop().time()
        if now - self._refreshed_at < self._refresh_interval:
            return
        self._refreshed_at = now
        committed = self._admitted - self._uncommitted
        queued = await pending_requests.sagas_with_starts(
            tx, self._registry.saga_names, self._registry.definition_ids
        )
        in_use = await runs.due_within(tx, self._horizons, self._max_slots)
        self._sagas_with_queue, self._slots_in_use, self._admitted_when_counted = (
            queued,
            in_use,
            committed,
        )

    def has_slot(self, saga: str) -> bool:
        """Whether a newcomer may begin: there is a place, and nobody waits for it."""
        return saga not in self._sagas_with_queue and self._free_slots(saga) > 0

    def quotas(self, sagas: Collection[str], limit: int) -> dict[str, int]:
        """How many of those that wait may begin now, by saga, *limit* at the most of each."""
        free_slots = {saga: self._free_slots(saga) for saga in sorted(sagas)}
        return {
            saga: min(free, limit)
            for saga, free in free_slots.items()
            if free * ADMISSION_GROUP_DIVISOR >= self.slots(saga)
        }

    def slots(self, saga: str) -> int:
        """How many runs of a saga may be under way at once."""
        return int(self._slot_limits.get(saga, min(INITIAL_SLOTS, self._max_slots)))

    def admit(self, saga: str, admitted: Counter[str]) -> None:
        """Give a place away, in the transaction of *entering*."""
        for counter in (self._admitted, self._uncommitted, admitted):
            counter[saga] += 1

    def mark_queued(self, saga: str) -> None:
        """From now on newcomers go behind the one that was sent to wait."""
        self._sagas_with_queue.add(saga)

    @contextmanager
    def track_transaction(self) -> Iterator[Counter[str]]:
        """
        Surround a transaction.

        Yields:
            The runs it lets in, by saga, to be counted by `let_in`: until it has ended they show
            nowhere else.
        """
        admitted: Counter[str] = Counter()
        try:
            yield admitted
        finally:
            self._uncommitted.subtract(admitted)

    def connection_lost(self) -> None:
        """
        Database or broker are out of reach: nobody is to blame for what is late by that.

        That is over with the next transaction that succeeds; while the broker is away, each look at
        what waits says it again.
        """
        self._disconnected_until = float("inf")

    def connection_restored(self) -> None:
        """A transaction has succeeded: if we were cut off, that was until now."""
        self._disconnected_until = min(self._disconnected_until, asyncio.get_running_loop().time())

    def adapt(self, changes: ChangeSet) -> None:
        """See from what a batch settled whether there is room for more, or for less."""
        connected_s = asyncio.get_running_loop().time() - self._disconnected_until
        for decided in changes.after_commit.decided_events:
            timeout_share = _timeout_share(decided, changes, connected_s)
            if timeout_share is None or FAST_SHARE <= timeout_share <= SLOW_SHARE:
                continue
            run = decided.after
            slots = self._slot_limits.setdefault(run.saga, min(INITIAL_SLOTS, self._max_slots))
            increment = 0.5 / len(run.steps)
            if timeout_share < FAST_SHARE:
                self._slot_limits[run.saga] = min(slots + increment, self._max_slots)
            else:
                floor = min(slots, INITIAL_SLOTS if _is_timeout(decided) else MIN_SLOTS)
                self._slot_limits[run.saga] = max(slots - 3 * increment, floor)

    def _free_slots(self, saga: str) -> int:
        uncounted = self._admitted[saga] - self._admitted_when_counted[saga]
        return max(0, self.slots(saga) - self._slots_in_use.get(saga, 0) - uncounted)


def _longest_timeout(saga: Saga) -> timedelta:
    command_specs = [
        spec_or_none
        for step in saga.steps.values()
        for spec_or_none in (step.action_spec, step.compensation_spec)
        if spec_or_none
    ]
    return max(spec.timeout for spec in command_specs)


def _is_timeout(decided: DecidedEvent) -> bool:
    event = decided.event
    return isinstance(event, events.AttemptFailed) and event.outcome is Outcome.UNKNOWN


def _timeout_share(decided: DecidedEvent, changes: ChangeSet, connected_s: float) -> float | None:
    """
    How much of its timeout an attempt took; None for what tells nothing of a participant.

    Args:
        in_touch: for how many seconds neither database nor broker has been out of reach.
    """
    event = decided.event
    if decided.before is None or not isinstance(event, _ATTEMPT_RESULTS) or not event.attempt:
        return None
    if isinstance(event, events.AttemptFailed) and event.unroutable:
        return None
    progress = decided.before.steps[event.step].progress_of(event.direction)
    if progress.sent_at is None:
        return None
    elapsed = changes.now - progress.sent_at
    timeout = progress.due_at - progress.sent_at if progress.due_at else timedelta()
    given_up = progress.status is not StepStatus.IN_FLIGHT or progress.attempts != event.attempt
    # Of one that was given up only the last is known, which was sent when the time of those before
    # it was over.
    earlier_timeouts = max(given_up, progress.attempts - event.attempt)
    if (elapsed + earlier_timeouts * timeout).total_seconds() >= connected_s:
        return None
    if given_up:
        return 1.0
    return elapsed / timeout if timeout else None
