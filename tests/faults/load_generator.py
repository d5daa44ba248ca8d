"""Starts runs at a steady rate during all faults, and remembers what it requested."""

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
from saga_engine.vocabulary import ConnectionRole
from tests.faults import workload
from tests.faults.environment import UNAVAILABLE_ERRORS, FaultEnvironment
from tests.kit.connections import open_connection
from tests.kit.programs import sleep, wait_until_true

RATE = 12  # Runs per second, with their events: as many as two cores process beside the suite.
MAX_UNFINISHED = 5 * RATE
"""
Maximum number of unfinished runs: the backlog of an outage must not disturb the next fault.

They are processed in 5 s, half of the time in which a new run must be completed, because commands
are processed in order. The other half is for detecting the fault and reconnecting. `tests/load`
tests large backlogs.
"""

MIN_UNFINISHED = 5  # With fewer unfinished runs a fault affects none.
INTERVAL_S = 0.25
LOST_REQUEST_WINDOW_S = 60.0  # Maximum age of a request in a queue that was lost.

# Steps that may be rejected: all but the ticket, which is after the pivot.
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
    """One requested run; `accepted` when the broker has confirmed the request."""

    saga: str
    job_id: str
    scenario: str
    request: StartRequest
    accepted_at: float = 0.0  # monotonic clock; 0 before the confirm

    @property
    def accepted(self):
        return self.accepted_at > 0.0


class LoadGenerator:
    """Starts runs at a steady rate; `async with` connects it to the broker."""

    def __init__(self, environment: FaultEnvironment, random: Random):
        self.requested: dict[str, RequestedRun] = {}
        self.paused = False
        self._environment, self._random = environment, random
        self._unconfirmed: list[StartRequest] = []
        self._finished = 0
        self._number = 0

    async def __aenter__(self):
        self._connection = open_connection(
            self._environment.broker_url, ConnectionRole.PUBLISH, topology=CLIENT_TOPOLOGY
        )
        self._publisher = Publisher(await self._connection.__aenter__())
        self._tasks = asyncio.TaskGroup()  # a load that breaks ends the suite
        await self._tasks.__aenter__()
        self._task = self._tasks.create_task(self._run())
        return self

    async def __aexit__(self, kind, error, trace):
        self._task.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self._connection.__aexit__(None, None, None)

    @property
    def accepted(self):
        return sum(each.accepted for each in self.requested.values())

    async def seconds_to_resume(self, since, *, patience):
        """
        Seconds from `since` until a run that was started after it has completed.

        None if there is none within `patience` seconds.
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
        """Wait until enough runs are active; one with an open incident is not."""

        async def is_busy():
            try:
                [[unfinished]] = await self._environment.execute(_UNFINISHED)
            except UNAVAILABLE_ERRORS:
                return False
            return unfinished >= 2 * MIN_UNFINISHED

        await wait_until_true(is_busy)

    async def count_active_between(self, since, until):
        """The number of runs that were active at some time in an interval."""
        [[number]] = await self._environment.execute(_ACTIVE_BETWEEN, since, until)
        return number

    async def wait_until_finished(self, *, patience=120.0):
        """Stop starting runs, and wait until each has finished or has an open incident."""
        self.paused = True
        unfinished: list[str] = []

        async def have_finished():
            if self._unconfirmed:
                return False
            try:
                rows = await self._environment.execute(_FINISHED_RUNS)
            except UNAVAILABLE_ERRORS:
                return False
            finished = {str(row["run_id"]) for row in rows}
            unfinished[:] = [each for each in self.requested if each not in finished]
            return not unfinished

        with suppress(TimeoutError):  # the result has those that have not
            await wait_until_true(have_finished, patience=patience)
        return unfinished

    def resume(self):
        self.paused = False

    async def _run(self):
        while True:
            if not self.paused and not await self._has_max_unfinished():
                self._unconfirmed += [self._make_request() for _ in range(int(RATE * INTERVAL_S))]
            if self._environment.requests_lost:
                await self._repeat_lost_requests()
            if self._unconfirmed:
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
        scenario = random.choices(("succeed", "reject", "flaky", "slow"), weights=(70, 15, 12, 3))[
            0
        ]
        if scenario == "reject":
            scenario += ":" + random.choice(REJECTABLE_STEPS[saga])
        elif scenario != "succeed":
            scenario += ":" + random.choice(FLAKY_STEPS[saga])
        self._number += 1
        run_id, job_id = uuid7(), f"job-{self._number}"
        job = {"job_id": job_id, "scenario": scenario, "secret": self._environment.secret}
        request = StartRequest(run_id=run_id, saga=saga, input=job, key=job_id)
        self.requested[str(run_id)] = RequestedRun(saga, job_id, scenario, request)
        return request

    async def _repeat_lost_requests(self):
        """Repeat lost requests after a queue was emptied, as a client without an answer does."""
        try:
            rows = await self._environment.execute("SELECT run_id FROM saga_engine.run")
        except UNAVAILABLE_ERRORS:
            return
        existing = {str(row["run_id"]) for row in rows} | {
            str(each.run_id) for each in self._unconfirmed
        }
        # Only requests that may have been in that queue: P6 finds what was lost earlier.
        oldest = monotonic() - LOST_REQUEST_WINDOW_S
        self._unconfirmed += [
            each.request
            for run_id, each in self.requested.items()
            if run_id not in existing and each.accepted_at > oldest
        ]
        self._environment.requests_lost = False

    async def _publish(self):
        """Publish requests; one without a confirm is repeated with the same run id."""
        requests, self._unconfirmed = self._unconfirmed, []
        try:
            outcomes = await self._publisher.publish([encode_request(each) for each in requests])
        except BaseException:
            self._unconfirmed = requests
            raise
        for request, outcome in zip(requests, outcomes, strict=True):
            if outcome == "confirmed":
                self.requested[str(UUID(str(request.run_id)))].accepted_at = monotonic()
            else:
                self._unconfirmed.append(request)


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
