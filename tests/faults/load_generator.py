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
from saga_engine.protocol.topology import CLIENT_TOPOLOGY
from tests.faults import workload
from tests.faults.environment import UNAVAILABLE_ERRORS
from tests.kit.connections import open_connection
from tests.kit.programs import sleep, wait_until_true

RATE = 16  # Runs a second: what two cores take in with everything else the suite does.
MAX_UNFINISHED = 5 * RATE
"""
Unfinished runs: an outage must not pile up what the next fault has to work off.

They are worked off in 5 s, which is half of what is allowed until a new run is completed: commands
are taken in order, so that it comes behind them all. The other half is for finding out and for
connecting again, which are the engine's. What becomes of large backlogs is shown by `tests/load`.
"""

MIN_UNFINISHED = 5  # Unfinished runs without which a fault meets nobody.
INTERVAL_S = 0.25
LOST_REQUEST_WINDOW_S = 60.0  # Seconds that a request may have been in a queue that is lost.

# What may be refused: everything before the ticket, which must succeed.
REJECTABLE_STEPS = {
    "order": ("reserve", "charge", "ship"),
    "journey": ("flight", "hotel", "car", "pay"),
}
FLAKY_STEPS = {
    "order": tuple(workload.order_saga.steps),
    "journey": tuple(workload.journey_saga.steps),
}


@dataclass
class RequestedRun:
    """One run that was asked for; `accepted` when the broker has confirmed the request."""

    saga: str
    job_id: str
    scenario: str
    request: StartRequest
    accepted_at: float = 0.0  # by the monotonic clock; 0 while the broker has not confirmed it

    @property
    def accepted(self):
        return self.accepted_at > 0.0


class LoadGenerator:
    """Starts runs at a steady rate; `async with` gives it the way to the broker."""

    def __init__(self, environment, random: Random):
        self.requested: dict[str, RequestedRun] = {}
        self.paused = False
        self._environment, self._random = environment, random
        self._waiting: list[StartRequest] = []
        self._finished = 0
        self._number = 0

    async def __aenter__(self):
        self._link = open_connection(
            self._environment.broker_url, "publish", topology=CLIENT_TOPOLOGY
        )
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
        return sum(each.accepted for each in self.requested.values())

    async def seconds_to_resume(self, since, *, patience):
        """
        Seconds from `since` to when a run that was started after it was completed.

        None when there is none within `patience` seconds.
        """
        found = None

        async def has_resumed():
            nonlocal found
            try:
                [[found]] = await self._environment.execute(_RESUMED, since)
            except UNAVAILABLE_ERRORS:
                return False
            return found is not None

        try:
            await wait_until_true(has_resumed, patience=patience)
        except TimeoutError:
            return None
        return (found - since).total_seconds()

    async def wait_until_busy(self):
        """Wait until enough runs go on: one that waits for a person is met by no fault."""

        async def is_busy():
            try:
                [[unfinished]] = await self._environment.execute(_UNFINISHED)
            except UNAVAILABLE_ERRORS:
                return False
            return unfinished >= 2 * MIN_UNFINISHED

        await wait_until_true(is_busy)

    async def count_active_between(self, begun, ended):
        """How many runs went on at some moment between two."""
        [[number]] = await self._environment.execute(_ACTIVE_BETWEEN, begun, ended)
        return number

    async def wait_until_finished(self, *, patience=120.0):
        """Start nothing more, and wait until every run has ended or waits for a person."""
        self.paused = True
        unsettled: list[str] = []

        async def has_settled():
            if self._waiting:
                return False
            try:
                rows = await self._environment.execute(_FINISHED_RUNS)
            except UNAVAILABLE_ERRORS:
                return False
            settled = {str(row["run_id"]) for row in rows}
            unsettled[:] = [each for each in self.requested if each not in settled]
            return not unsettled

        with suppress(TimeoutError):  # P1 says which have not
            await wait_until_true(has_settled, patience=patience)
        return unsettled

    def resume(self):
        self.paused = False

    async def _run(self):
        while True:
            if not self.paused and not await self._has_max_unfinished():
                self._waiting += [self._make_request() for _ in range(int(RATE * INTERVAL_S))]
            if self._environment.requests_lost:
                await self._repeat_lost_requests()
            if self._waiting:
                await self._publish()
            await sleep(INTERVAL_S)

    async def _has_max_unfinished(self):
        try:
            [[self._finished]] = await self._environment.execute(_FINISHED)
        except UNAVAILABLE_ERRORS:
            return True
        return len(self.requested) - self._finished > MAX_UNFINISHED

    def _make_request(self):
        random = self._random
        saga = random.choice(("order", "order", "journey"))
        scenario = random.choices(("fine", "refused", "flaky", "slow"), weights=(70, 15, 12, 3))[0]
        if scenario == "refused":
            scenario += ":" + random.choice(REJECTABLE_STEPS[saga])
        elif scenario != "fine":
            scenario += ":" + random.choice(FLAKY_STEPS[saga])
        self._number += 1
        run_id, errand = uuid7(), f"e-{self._number}"
        given = {"errand": errand, "whim": scenario, "secret": self._environment.secret}
        request = StartRequest(run_id=run_id, saga=saga, input=given, key=errand)
        self.requested[str(run_id)] = RequestedRun(saga, errand, scenario, request)
        return request

    async def _repeat_lost_requests(self):
        """A queue was emptied: ask for what is not there, as a client does that hears nothing."""
        try:
            rows = await self._environment.execute("SELECT run_id FROM saga_engine.run")
        except UNAVAILABLE_ERRORS:
            return
        there = {str(row["run_id"]) for row in rows} | {str(each.run_id) for each in self._waiting}
        # Only what may have been in that queue: what was lost before is for P6 to find.
        lately = monotonic() - LOST_REQUEST_WINDOW_S
        self._waiting += [
            each.request
            for run_id, each in self.requested.items()
            if run_id not in there and each.accepted_at > lately
        ]
        self._environment.requests_lost = False

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
                self.requested[str(UUID(str(request.run_id)))].accepted_at = monotonic()
            else:
                self._waiting.append(request)


_RESUMED = """
    SELECT min(finished_at) FROM saga_engine.run WHERE started_at > $1 AND status = 'completed'"""
_ACTIVE_BETWEEN = """
    SELECT count(*) FROM saga_engine.run AS r
    WHERE started_at <= $2 AND coalesce(finished_at >= $1, true) AND NOT EXISTS (
        SELECT FROM saga_engine.incident AS i
        WHERE i.run_id = r.run_id AND i.resolved_at IS NULL AND i.opened_at < $1)"""
_UNFINISHED = """
    SELECT count(*) FROM saga_engine.run AS r WHERE finished_at IS NULL AND NOT EXISTS (
        SELECT FROM saga_engine.incident AS i WHERE i.run_id = r.run_id AND i.resolved_at IS NULL)
    """
_FINISHED = "SELECT count(*) FROM saga_engine.run WHERE finished_at IS NOT NULL"
_FINISHED_RUNS = """
    SELECT run_id FROM saga_engine.run AS r WHERE finished_at IS NOT NULL OR EXISTS (
        SELECT FROM saga_engine.incident AS i WHERE i.run_id = r.run_id AND i.resolved_at IS NULL)
    """
