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
from saga_engine.identifiers import misfit
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store import pending_requests, runs
from saga_engine.store.database import Transaction
from saga_engine.vocabulary import Outcome
from saga_engine.worker.change_set import Ledger, Recorded
from saga_engine.worker.registry import Catalogue

FIRST = 100
"""Places to begin with: at the default timeout of 30 s, right for 7 commands a second or more."""

LEAST = 10
"""Places there are at the least, however late the replies: something must show that they mend."""

SOON, LATE = 0.25, 0.5
"""Shares of its timeout: a reply before the first says there is room, one after the second not."""

LONGEST = timedelta(hours=1)
"""A step with a longer timeout waits for people or for days, and keeps no participant busy."""

PORTION = 10
"""The waiting are let in when a tenth of the places is free: one at a time costs too much."""

_SETTLED = (events.StepSucceeded, events.StepRejected, events.AttemptFailed)


class Admission:
    """
    The places of each saga, as one worker sees them; its batches share it.

    A run takes a place while something is due of it within `in_flight_horizon`, or within the
    longest timeout of its saga up to an hour, as its `wake_at` says: that is lazy, so a place may
    be free that much later, but never too early. What is committed is counted at most once in
    `poll`; what this worker has let in since is added. Workers that look in the same moment may
    together let in a batch each too many: the bound is there for the queues' sake, not to the last
    run.
    """

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self._catalogue = catalogue
        self._most = settings.runs_in_flight
        self._id_age = timedelta(days=settings.run_id_age_days)
        self._id_lead = timedelta(seconds=settings.run_id_lead)
        least = timedelta(seconds=settings.in_flight_horizon)
        self._horizons = {
            number: max(least, min(_longest(saga), LONGEST))
            for number, saga in catalogue.sagas.items()
        }
        self._fresh = settings.poll
        self._looked = float("-inf")
        self._places: dict[str, float] = {}
        self._taken: Mapping[str, int] = {}
        self._let_in: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()  # of those let in, what is in `_taken`
        self._undecided: Counter[str] = Counter()  # of those, what is in transactions not over
        self._waiting: set[str] = set()
        self.cut_off()  # as it was before it began

    def misfit(self, run_id: str, now: datetime) -> str | None:
        """Why an id cannot be that of a new run; None: it can."""
        return misfit(UUID(run_id), now, age=self._id_age, lead=self._id_lead)

    async def look(self, tx: Transaction) -> None:
        """Count what is committed, unless that is known from a moment ago."""
        now = asyncio.get_running_loop().time()
        if now - self._looked < self._fresh:
            return
        self._looked = now
        counted = self._let_in - self._undecided
        waiting = await pending_requests.sagas_waiting(
            tx, self._catalogue.names, self._catalogue.ids
        )
        taken = await runs.due_within(tx, self._horizons, self._most)
        self._waiting, self._taken, self._counted = waiting, taken, counted

    def admits(self, saga: str) -> bool:
        """Whether a newcomer may begin: there is a place, and nobody waits for it."""
        return saga not in self._waiting and self._room(saga) > 0

    def turns(self, sagas: Collection[str], limit: int) -> dict[str, int]:
        """How many of those that wait may begin now, by saga, *limit* at the most of each."""
        room = {saga: self._room(saga) for saga in sorted(sagas)}
        return {
            saga: min(free, limit)
            for saga, free in room.items()
            if free * PORTION >= self.places(saga)
        }

    def places(self, saga: str) -> int:
        """How many runs of a saga may be under way at once."""
        return int(self._places.get(saga, min(FIRST, self._most)))

    def let_in(self, saga: str, entering: Counter[str]) -> None:
        """Give a place away, in the transaction of *entering*."""
        for counter in (self._let_in, self._undecided, entering):
            counter[saga] += 1

    def queue(self, saga: str) -> None:
        """From now on newcomers go behind the one that was sent to wait."""
        self._waiting.add(saga)

    @contextmanager
    def transaction(self) -> Iterator[Counter[str]]:
        """
        Surround a transaction.

        Yields:
            The runs it lets in, by saga, to be counted by `let_in`: until it has ended they show
            nowhere else.
        """
        entering: Counter[str] = Counter()
        try:
            yield entering
        finally:
            self._undecided.subtract(entering)

    def cut_off(self) -> None:
        """
        Database or broker are out of reach: nobody is to blame for what is late by that.

        That is over with the next transaction that succeeds; while the broker is away, each look at
        what waits says it again.
        """
        self._cut_off_until = float("inf")

    def reconnected(self) -> None:
        """A transaction has succeeded: if we were cut off, that was until now."""
        self._cut_off_until = min(self._cut_off_until, asyncio.get_running_loop().time())

    def learn(self, ledger: Ledger) -> None:
        """See from what a batch settled whether there is room for more, or for less."""
        in_touch = asyncio.get_running_loop().time() - self._cut_off_until
        for recorded in ledger.outcome.recorded:
            share = _share(recorded, ledger, in_touch)
            if share is None or SOON <= share <= LATE:
                continue
            run = recorded.after
            places = self._places.setdefault(run.saga, min(FIRST, self._most))
            step = 0.5 / len(run.steps)
            if share < SOON:
                self._places[run.saga] = min(places + step, self._most)
            else:
                least = min(places, FIRST if _is_silence(recorded) else LEAST)
                self._places[run.saga] = max(places - 3 * step, least)

    def _room(self, saga: str) -> int:
        uncounted = self._let_in[saga] - self._counted[saga]
        return max(0, self.places(saga) - self._taken.get(saga, 0) - uncounted)


def _longest(saga: Saga) -> timedelta:
    orders = [each for step in saga.steps.values() for each in (step.action, step.undo) if each]
    return max(order.timeout for order in orders)


def _is_silence(recorded: Recorded) -> bool:
    event = recorded.event
    return isinstance(event, events.AttemptFailed) and event.outcome is Outcome.UNKNOWN


def _share(recorded: Recorded, ledger: Ledger, in_touch: float) -> float | None:
    """
    How much of its timeout an attempt took; None for what tells nothing of a participant.

    Args:
        in_touch: for how many seconds neither database nor broker has been out of reach.
    """
    event = recorded.event
    if recorded.before is None or not isinstance(event, _SETTLED) or not event.attempt:
        return None
    if isinstance(event, events.AttemptFailed) and event.returned:
        return None
    progress = recorded.before.steps[event.step].toward(event.direction)
    if progress.sent_at is None:
        return None
    took = ledger.now - progress.sent_at
    timeout = progress.due_at - progress.sent_at if progress.due_at else timedelta()
    given_up = progress.status is not StepStatus.IN_FLIGHT or progress.attempts != event.attempt
    # Of one that was given up only the last is known, which was sent when the time of those before
    # it was over.
    over = max(given_up, progress.attempts - event.attempt)
    if (took + over * timeout).total_seconds() >= in_touch:
        return None
    if given_up:
        return 1.0
    return took / timeout if timeout else None
