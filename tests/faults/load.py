"""Runs that are started all the time, whatever happens to the engine, and what was asked for."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from time import monotonic
from uuid import UUID

from saga_engine.amqp.publisher import Publisher
from saga_engine.identifiers import uuid7
from saga_engine.protocol.request import StartRequest, encode_request
from saga_engine.protocol.topology import CLIENT
from tests.broker.links import link_to
from tests.faults import shop
from tests.faults.processes import eventually, lasting
from tests.faults.site import AWAY

RATE = 16  # Runs a second: what two cores take in with everything else the suite does.
AT_MOST = 5 * RATE
"""
Unfinished runs: an outage must not pile up what the next fault has to work off.

They are worked off in 5 s, which is half of what is allowed until a new run is completed: commands
are taken in order, so that it comes behind them all. The other half is for finding out and for
connecting again, which are the engine's. What becomes of large backlogs is shown by `tests/load`.
"""

BUSY = 5  # Unfinished runs without which a fault meets nobody.
TICK = 0.25
LATELY = 60.0  # Seconds that a request may have been in a queue that is lost.

# What may be refused: everything before the ticket, which must succeed.
REFUSABLE = {
    "order": ("reserve", "charge", "ship"),
    "journey": ("flight", "hotel", "car", "pay"),
}
FLAKY = {"order": tuple(shop.orders.steps), "journey": tuple(shop.journeys.steps)}


@dataclass
class Asked:
    """One run that was asked for; `accepted` when the broker has confirmed the request."""

    saga: str
    errand: str
    whim: str
    request: StartRequest
    accepted_at: float = 0.0  # by the monotonic clock; 0 while the broker has not confirmed it

    @property
    def accepted(self):
        return self.accepted_at > 0.0


class Load:
    """Starts runs at a steady rate; `async with` gives it the way to the broker."""

    def __init__(self, site, random: Random):
        self.asked: dict[str, Asked] = {}
        self.pause = False
        self._site, self._random = site, random
        self._waiting: list[StartRequest] = []
        self._finished = 0
        self._number = 0

    async def __aenter__(self):
        self._link = link_to(self._site.broker_url, "publish", topology=CLIENT)
        self._publisher = Publisher(await self._link.__aenter__())
        self._tasks = asyncio.TaskGroup()  # a load that breaks ends the suite
        await self._tasks.__aenter__()
        self._task = self._tasks.create_task(self._run())
        return self

    async def __aexit__(self, kind, error, trace):
        self._task.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self._link.__aexit__(None, None, None)

    @property
    def accepted(self):
        return sum(each.accepted for each in self.asked.values())

    async def resumed(self, since, *, patience):
        """
        Seconds from `since` to when a run that was started after it was completed.

        None when there is none within `patience` seconds.
        """
        found = None

        async def has_resumed():
            nonlocal found
            try:
                [[found]] = await self._site.execute(_RESUMED, since)
            except AWAY:
                return False
            return found is not None

        try:
            await eventually(has_resumed, patience=patience)
        except TimeoutError:
            return None
        return (found - since).total_seconds()

    async def busy(self):
        """Wait until enough runs go on: one that waits for a person is met by no fault."""

        async def is_busy():
            try:
                [[unfinished]] = await self._site.execute(_UNFINISHED)
            except AWAY:
                return False
            return unfinished >= 2 * BUSY

        await eventually(is_busy)

    async def under(self, begun, ended):
        """How many runs went on at some moment between two."""
        [[number]] = await self._site.execute(_UNDER, begun, ended)
        return number

    async def settle(self, *, patience=120.0):
        """Start nothing more, and wait until every run has ended or waits for a person."""
        self.pause = True
        unsettled: list[str] = []

        async def has_settled():
            if self._waiting:
                return False
            try:
                rows = await self._site.execute(_SETTLED)
            except AWAY:
                return False
            settled = {str(row["run_id"]) for row in rows}
            unsettled[:] = [each for each in self.asked if each not in settled]
            return not unsettled

        with suppress(TimeoutError):  # P1 says which have not
            await eventually(has_settled, patience=patience)
        return unsettled

    def go_on(self):
        self.pause = False

    async def _run(self):
        while True:
            if not self.pause and not await self._crowded():
                self._waiting += [self._request() for _ in range(int(RATE * TICK))]
            if self._site.requests_lost:
                await self._ask_again()
            if self._waiting:
                await self._publish()
            await lasting(TICK)

    async def _crowded(self):
        try:
            [[self._finished]] = await self._site.execute(_FINISHED)
        except AWAY:
            return True
        return len(self.asked) - self._finished > AT_MOST

    def _request(self):
        random = self._random
        saga = random.choice(("order", "order", "journey"))
        whim = random.choices(("fine", "refused", "flaky", "slow"), weights=(70, 15, 12, 3))[0]
        if whim == "refused":
            whim += ":" + random.choice(REFUSABLE[saga])
        elif whim != "fine":
            whim += ":" + random.choice(FLAKY[saga])
        self._number += 1
        run_id, errand = uuid7(), f"e-{self._number}"
        given = {"errand": errand, "whim": whim, "secret": self._site.secret}
        request = StartRequest(run_id, saga, given, key=errand)
        self.asked[str(run_id)] = Asked(saga, errand, whim, request)
        return request

    async def _ask_again(self):
        """A queue was emptied: ask for what is not there, as a client does that hears nothing."""
        try:
            rows = await self._site.execute("SELECT run_id FROM saga_engine.run")
        except AWAY:
            return
        there = {str(row["run_id"]) for row in rows} | {str(each.run_id) for each in self._waiting}
        # Only what may have been in that queue: what was lost before is for P6 to find.
        lately = monotonic() - LATELY
        self._waiting += [
            each.request
            for run_id, each in self.asked.items()
            if run_id not in there and each.accepted_at > lately
        ]
        self._site.requests_lost = False

    async def _publish(self):
        """What is not confirmed is asked for again: the same run by the same id."""
        waiting, self._waiting = self._waiting, []
        try:
            outcomes = await self._publisher.publish([encode_request(each) for each in waiting])
        except BaseException:
            self._waiting = waiting
            raise
        for request, outcome in zip(waiting, outcomes, strict=True):
            if outcome == "confirmed":
                self.asked[str(UUID(str(request.run_id)))].accepted_at = monotonic()
            else:
                self._waiting.append(request)


_RESUMED = """
    SELECT min(finished_at) FROM saga_engine.run WHERE started_at > $1 AND status = 'completed'"""
_UNDER = """
    SELECT count(*) FROM saga_engine.run AS r
    WHERE started_at <= $2 AND coalesce(finished_at >= $1, true) AND NOT EXISTS (
        SELECT FROM saga_engine.incident AS i
        WHERE i.run_id = r.run_id AND i.resolved_at IS NULL AND i.opened_at < $1)"""
_UNFINISHED = """
    SELECT count(*) FROM saga_engine.run AS r WHERE finished_at IS NULL AND NOT EXISTS (
        SELECT FROM saga_engine.incident AS i WHERE i.run_id = r.run_id AND i.resolved_at IS NULL)
    """
_FINISHED = "SELECT count(*) FROM saga_engine.run WHERE finished_at IS NOT NULL"
_SETTLED = """
    SELECT run_id FROM saga_engine.run AS r WHERE finished_at IS NOT NULL OR EXISTS (
        SELECT FROM saga_engine.incident AS i WHERE i.run_id = r.run_id AND i.resolved_at IS NULL)
    """
