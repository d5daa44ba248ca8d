"""
Admission control: how many runs of a saga are in flight at once, and which start is next.

A command that waits in its participant's queue for longer than its timeout is sent again although
the participant is healthy. The queue then grows by the copies, and runs are compensated for no
reason. Only the engine can keep the queue short, by starting no more runs than can be answered in
time. A start that finds no free slot is committed and answered, and waits in PostgreSQL; the oldest
one is next.

The number of slots follows the replies, by additive increase and additive decrease. A reply within
a quarter of its timeout adds a little; one that takes more than half of it removes three times as
much. Both are additive because every run in flight is a sample: together they add a half, or halve
(after Jain and Chiu's rule for windows, 1989).

There are never fewer slots than the throughput fills that was measured: that many runs are answered
within a quarter of their timeouts (Little's law, 1961). So a saga that just began, or begins again
after late replies, has the slots that its participants can fill after `RATE_WINDOW` seconds.

Not every late reply means overload:

- Attempts in flight while the worker itself was disconnected are not counted.
- A timeout is not a late reply. A dead consumer does not answer what it has prefetched. If the
  limit fell below its prefetch, every admitted run would be waiting on it. So attempts that time
  out remove no more slots than replies have added.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from saga_engine.decider import events
from saga_engine.decider.run import Run, StepStatus
from saga_engine.errors import StoreLockTimeout, StoreUnavailable
from saga_engine.identifiers import invalid_run_id_reason
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store.interfaces import StoreTransaction
from saga_engine.vocabulary import Outcome
from saga_engine.worker.change_set import ChangeSet
from saga_engine.worker.registry import SagaRegistry

INITIAL_SLOTS = 100
"""Slots at first: right for participants of at least 7 commands/s at the default timeout, 30 s."""

MIN_SLOTS = 10
"""Slots that always remain, however late the replies: only replies can show a recovery."""

FAST_SHARE, SLOW_SHARE = 0.25, 0.5
"""Shares of the timeout: a reply before the first adds slots, one after the second removes some."""

RATE_WINDOW = 1.0
"""Seconds in which the replies of a saga are counted. A late reply begins a new window."""

MAX_HORIZON = timedelta(hours=1)
"""A step with a longer timeout waits for people or for days, and does not load a participant."""

ADMISSION_GROUP_DIVISOR = 10
"""Queued starts are admitted in groups, once a tenth of the slots is free: each look has a cost."""

_ATTEMPT_RESULTS = (events.StepSucceeded, events.StepRejected, events.AttemptFailed)


class Admission:
    """
    The slots of each saga, as one worker sees them. Its batches share one `Admission`.

    A run uses a slot while its `wake_at` is within `idle_run_threshold`, or within the longest
    timeout of its saga up to `MAX_HORIZON`. Because `wake_at` is lazy, a slot may be freed that
    much later, but never too early. Committed runs are counted at most once per `poll_interval`;
    what this worker has admitted since then is added. Workers that count at the same moment may
    each admit one batch too many: the limit protects the queues and is not exact.
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
        self._windows: dict[str, _RateWindow] = {}
        self._shortest_timeouts = _shortest_timeouts(registry.sagas.values())
        self._slots_in_use: Mapping[str, int] = {}
        self._admitted: Counter[str] = Counter()
        # Of the admitted runs: those that the last count included, and those not committed yet.
        self._admitted_when_counted: Counter[str] = Counter()
        self._uncommitted: Counter[str] = Counter()
        self._sagas_with_queue: set[str] = set()
        self.connection_lost()  # until the first transaction succeeds

    def run_id_problem(self, run_id: str, now: datetime) -> str | None:
        """Why an id cannot be that of a new run; None if it can."""
        return invalid_run_id_reason(
            UUID(run_id), now, max_age=self._max_run_id_age, max_clock_lead=self._max_run_id_lead
        )

    async def refresh(self, tx: StoreTransaction) -> None:
        """Count the committed runs, unless they were counted within `poll_interval`."""
        now = asyncio.get_running_loop().time()
        if now - self._refreshed_at < self._refresh_interval:
            return
        self._refreshed_at = now
        committed = self._admitted - self._uncommitted
        queued = await tx.sagas_with_starts(
            self._registry.saga_names, self._registry.definition_ids
        )
        in_use = await tx.due_within(self._horizons, self._max_slots)
        self._sagas_with_queue, self._slots_in_use, self._admitted_when_counted = (
            queued,
            in_use,
            committed,
        )

    def has_slot(self, saga: str) -> bool:
        """Whether a new start may run now: a slot is free, and no queued start waits for it."""
        return saga not in self._sagas_with_queue and self._free_slots(saga) > 0

    def quotas(self, sagas: Collection[str], limit: int) -> dict[str, int]:
        """How many queued starts may run now, by saga, at most *limit* of each."""
        free_slots = {saga: self._free_slots(saga) for saga in sorted(sagas)}
        return {
            saga: min(free, limit)
            for saga, free in free_slots.items()
            if free * ADMISSION_GROUP_DIVISOR >= self.slots(saga)
        }

    def slots(self, saga: str) -> int:
        """How many runs of a saga may be in flight at once."""
        return int(self._slot_limits.get(saga, min(INITIAL_SLOTS, self._max_slots)))

    def admit(self, run_id: str, saga: str, admitted: dict[str, str]) -> None:
        """Use a slot, in the transaction that *admitted* belongs to."""
        admitted[run_id] = saga
        for counter in (self._admitted, self._uncommitted):
            counter[saga] += 1

    def give_back(self, run_ids: Collection[str], admitted: dict[str, str]) -> None:
        """Free the slots of starts of a transaction that have become no run."""
        for run_id in admitted.keys() & run_ids:
            saga = admitted.pop(run_id)
            for counter in (self._admitted, self._uncommitted):
                counter[saga] -= 1

    def mark_queued(self, saga: str) -> None:
        """Queue new starts of this saga too, behind the one that was queued."""
        self._sagas_with_queue.add(saga)

    @contextmanager
    def track_transaction(self) -> Iterator[dict[str, str]]:
        """
        Track what one transaction admits, until it has ended.

        If it fails, its slots are free again, unless it is unknown whether it was committed.

        Yields:
            The sagas of the admitted runs, by run id, for `admit`. Before the commit no count of
            the database includes them.
        """
        admitted: dict[str, str] = {}
        try:
            yield admitted
        except Exception as error:
            if not isinstance(error, StoreUnavailable) or isinstance(error, StoreLockTimeout):
                self.give_back(list(admitted), admitted)
            raise
        finally:
            self._uncommitted.subtract(Counter(admitted.values()))

    def connection_lost(self) -> None:
        """
        The database or the broker is unavailable: replies that are late for that do not count.

        It lasts until the next transaction succeeds. While the broker is unavailable the
        `pending_work` duty calls this again each time.
        """
        self._disconnected_until = float("inf")

    def connection_restored(self) -> None:
        """A transaction has succeeded: an outage, if there was one, has ended."""
        self._disconnected_until = min(self._disconnected_until, asyncio.get_running_loop().time())

    def adapt(self, changes: ChangeSet) -> None:
        """Adapt the slots to the attempts that a committed batch has finished."""
        connected_s = asyncio.get_running_loop().time() - self._disconnected_until
        for decision in changes.after_commit.decisions:
            for event in decision.events:
                timeout_share = _timeout_share(decision.before, event, changes, connected_s)
                if timeout_share is not None:
                    self._adapt_slots(decision.after, event, timeout_share)

    def _adapt_slots(self, run: Run, event: events.Event, timeout_share: float) -> None:
        if FAST_SHARE <= timeout_share <= SLOW_SHARE:
            return
        slots = self._slot_limits.setdefault(run.saga, min(INITIAL_SLOTS, self._max_slots))
        increment = 0.5 / len(run.steps)
        if timeout_share < FAST_SHARE:
            filled = self._slots_filled_by_replies(run)
            self._slot_limits[run.saga] = min(max(slots + increment, filled), self._max_slots)
        else:
            self._windows.pop(run.saga, None)
            floor = min(slots, INITIAL_SLOTS if _is_timeout(event) else MIN_SLOTS)
            self._slot_limits[run.saga] = max(slots - 3 * increment, floor)

    def _slots_filled_by_replies(self, run: Run) -> float:
        """Count an early reply; at the end of a window, how many slots such replies fill."""
        now = asyncio.get_running_loop().time()
        window = self._windows.setdefault(run.saga, _RateWindow(began_at=now))
        window.runs += 1 / len(run.steps)
        elapsed = now - window.began_at
        if elapsed < RATE_WINDOW:
            return 0.0
        del self._windows[run.saga]
        return window.runs / elapsed * FAST_SHARE * self._shortest_timeouts[run.saga]

    def _free_slots(self, saga: str) -> int:
        uncounted = self._admitted[saga] - self._admitted_when_counted[saga]
        return max(0, self.slots(saga) - self._slots_in_use.get(saga, 0) - uncounted)


@dataclass(slots=True)
class _RateWindow:
    """The early replies since a time of the event loop, as runs: each is a share of its run."""

    began_at: float
    runs: float = 0.0


def _longest_timeout(saga: Saga) -> timedelta:
    return max(_timeouts(saga))


def _shortest_timeouts(sagas: Iterable[Saga]) -> dict[str, float]:
    """The shortest timeout of all versions of each saga, in seconds."""
    shortest: dict[str, float] = {}
    for saga in sagas:
        seconds = min(_timeouts(saga)).total_seconds()
        shortest[saga.name] = min(seconds, shortest.get(saga.name, seconds))
    return shortest


def _timeouts(saga: Saga) -> list[timedelta]:
    return [
        spec_or_none.timeout
        for step in saga.steps.values()
        for spec_or_none in (step.action_spec, step.compensation_spec)
        if spec_or_none
    ]


def _is_timeout(event: events.Event) -> bool:
    return isinstance(event, events.AttemptFailed) and event.outcome is Outcome.UNKNOWN


def _timeout_share(
    before: Run | None, event: events.Event, changes: ChangeSet, connected_s: float
) -> float | None:
    """
    How much of its timeout an attempt took; None if that says nothing about its participant.

    Args:
        before: the run before the decision.
        connected_s: for how many seconds the database and the broker have been available.
    """
    if before is None or not isinstance(event, _ATTEMPT_RESULTS) or not event.attempt:
        return None
    if isinstance(event, events.AttemptFailed) and event.never_delivered:
        return None
    progress = before.steps[event.step].progress_of(event.direction)
    if progress.sent_at is None:
        return None
    elapsed = changes.now - progress.sent_at
    timeout = progress.due_at - progress.sent_at if progress.due_at else timedelta()
    given_up = progress.status is not StepStatus.IN_FLIGHT or progress.attempts != event.attempt
    # For an earlier attempt only the time of the last one is known; the last one was sent when
    # those before it had timed out.
    earlier_timeouts = max(given_up, progress.attempts - event.attempt)
    if (elapsed + earlier_timeouts * timeout).total_seconds() >= connected_s:
        return None
    if given_up:
        return 1.0
    return elapsed / timeout if timeout else None
