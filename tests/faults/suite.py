"""
The suite: injects faults in turn and mixed under constant load, and checks every promise.

Each kind of fault is injected its number of times. After each, the suite measures how long it takes
until a run that was started after its end completes. After a group of kinds it waits until all runs
have finished, and checks P1 to P7 for each, and E1 to E6 of the events. A violation of a run counts
for every kind of fault during the run. The result is a table.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from time import monotonic

from tests.faults.environment import READY_TIMEOUT_S, FaultEnvironment
from tests.faults.event_promise_checker import EventPromiseChecker
from tests.faults.fault import Fault
from tests.faults.load_generator import MIN_UNFINISHED, LoadGenerator
from tests.faults.promise_checker import PromiseChecker

MIXED = "mixed at random"
EXTRA_ATTEMPTS = 1  # Attempts of one kind beyond its number of times.
MAX_CONCURRENT_FAULTS = 3  # Maximum number of concurrent faults.
PROGRESS_TIMEOUT_S = 90.0  # Seconds after which there is no progress.
PROMISE = re.compile(r"\b(P[1-7]|E[1-6]): ")


@dataclass
class FaultResult:
    """One line of the table; `resumed_s` is the longest time until runs resumed."""

    name: str
    times: int = 0
    runs: int = 0
    resumed_s: float = 0.0
    violations: list[str] = field(default_factory=list)
    fault_intervals: list[tuple[datetime, datetime]] = field(default_factory=list)

    def overlaps(self, run_interval):
        """Whether one of these faults was injected during the run."""
        started_at, finished_at = run_interval
        return any(
            started_at <= until and since <= finished_at for since, until in self.fault_intervals
        )


@dataclass
class FaultSuite:
    """Injects faults into one environment; `rows` are the results so far."""

    environment: FaultEnvironment
    load: LoadGenerator
    random: Random
    print_line: Callable[[str], object] = print
    rows: list[FaultResult] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self._checker = PromiseChecker(self.environment, self.load)
        self._event_checker = EventPromiseChecker(self.environment)
        self._unchecked: list[FaultResult] = []  # whose runs are not checked yet
        self._started_at = monotonic()

    @property
    def times(self):
        return sum(row.times for row in self.rows)

    @property
    def violations(self):
        """Each violation once, even if it counts for several kinds."""
        return list(dict.fromkeys(each for row in self.rows for each in row.violations))

    async def run_fault(self, fault: Fault, times: int):
        """Inject one kind of fault several times; `check_promises` checks the runs later."""
        await self._repeat(FaultResult(fault.name), times, times + EXTRA_ATTEMPTS, lambda: [fault])

    async def run_mixed(self, faults: Sequence[Fault], times: int):
        """Inject random combinations of two or more kinds, several times."""
        await self._repeat(FaultResult(MIXED), times, times, lambda: self._compatible(faults))

    async def _repeat(
        self, row: FaultResult, times: int, attempts: int, choose: Callable[[], Sequence[Fault]]
    ):
        """
        Inject faults up to *times* times, in at most *attempts* attempts.

        A fault without an effect is reported and does not count: another fault prevented it, or the
        process that it would affect was not there at that moment.
        """
        self._unchecked.append(row)
        self.load.resume()
        for _ in range(attempts):
            if row.times < times:
                await self._inject_once(row, choose())
        if row.times < times:
            row.violations.append(
                f"{row.name}: only {row.times} had an effect in {attempts} attempts"
            )
        self._print_result(row)

    def _compatible(self, faults):
        """Choose faults of which no two need the same resource exclusively."""
        chosen: list[Fault] = []
        used: set[str] = set()
        max_faults = self.random.randint(2, MAX_CONCURRENT_FAULTS)
        for fault in self.random.sample(list(faults), k=len(faults)):
            if len(chosen) < max_faults and used.isdisjoint(fault.exclusive_resources):
                chosen.append(fault)
                used |= set(fault.exclusive_resources)
        return chosen

    async def _inject_once(self, row: FaultResult, faults: Sequence[Fault]):
        names = " + ".join(fault.name for fault in faults)
        await self.load.wait_until_busy()
        since = await self.environment.database_now()
        await self.environment.publish_malformed()
        randoms = [self.random]
        if len(faults) > 1:
            randoms = [Random(self.random.random()) for _ in faults]
        problems, end = await inject_all(self.environment, list(zip(faults, randoms, strict=True)))
        for problem in problems:
            if PROMISE.search(problem):
                row.violations.append(f"{names}: {problem}")
            else:
                self.print_line(f"          not counted in {names}: {problem}")
        until = await self.environment.database_now()
        row.fault_intervals.append((since, until))
        row.times += max(0, len(faults) - len(problems))  # one may have several problems
        allowed = max(fault.resume_limit_s for fault in faults)
        resumed = await self.load.seconds_to_resume(end, patience=PROGRESS_TIMEOUT_S)
        row.resumed_s = max(row.resumed_s, PROGRESS_TIMEOUT_S if resumed is None else resumed)
        if resumed is None or resumed > allowed:
            measured = "none" if resumed is None else f"{resumed:.1f} s"
            row.violations.append(f"progress after {names}: {measured}, {allowed:g} s are allowed")
        affected = await self.load.count_active_between(since, until)
        row.runs += affected
        if affected < MIN_UNFINISHED:
            row.violations.append(f"{names}: only {affected} runs were active")

    async def check_promises(self):
        """Wait until all runs have finished, and check every promise for the unchecked ones."""
        rows, self._unchecked = self._unchecked, []
        last = rows[-1]
        if unready := await self.environment.unready_processes():
            last.violations.append(
                f"P7: {READY_TIMEOUT_S:g} s after the last fault not ready: {unready}"
            )
        unfinished = await self.load.wait_until_finished()
        if unfinished:
            last.violations.append(
                f"P1: {len(unfinished)} runs neither finish nor have an incident"
            )
        try:
            await self._checker.wait_until_idle()
        except TimeoutError:
            last.violations.append("P6: messages or commands are left")
        self._checker.malformed_message_ids = self.environment.malformed_message_ids
        findings = await self._checker.check()
        findings.violations += [(each, None) for each in await self._event_checker.check()]
        for violation, interval in findings.violations:
            affected = [row for row in rows if interval and row.overlaps(interval)]
            for row in affected or [last]:
                row.violations.append(violation)
        self.statuses += findings.statuses
        self.rows += rows
        self.print_line(
            f"{monotonic() - self._started_at:6.0f} s  {findings.runs} runs checked,"
            f" {len(findings.violations)} violations"
        )
        for violation, _ in findings.violations[:5]:
            self.print_line(f"          {violation}")

    async def recheck_all(self):
        """Check every run again: a late message may have changed a finished run."""
        self._checker.forget_checked()
        self._event_checker.forget_checked()
        before, self.statuses = self.statuses, Counter()
        self._unchecked.append(FaultResult("all of them, again"))
        await self.check_promises()
        assert sum(self.statuses.values()) >= sum(before.values())

    def _print_result(self, row):
        self.print_line(f"{monotonic() - self._started_at:6.0f} s  {format_result(row)}")
        for each in row.violations[:5]:
            self.print_line(f"          {each}")


async def inject_all(
    environment: FaultEnvironment, faults: Sequence[tuple[Fault, Random]]
) -> tuple[list[str], datetime]:
    """
    Inject several faults concurrently, and wait until all of them are over.

    A fault that fails does not cancel the others: that would leave a server stopped, or a process
    with a wrong clock.

    Returns:
        The problem of each fault without an effect, and the time at which the last one ended.
    """
    problems: list[str] = []
    ends: list[datetime] = []

    async def attempt(fault: Fault, random: Random):
        try:
            ends.append(await fault.inject(environment, random) or await environment.database_now())
        except* Exception as errors:  # noqa: BLE001 - a bug of the suite is one more problem
            problems.extend(f"{type(each).__name__}: {each}" for each in errors.exceptions)

    async with asyncio.TaskGroup() as group:
        for fault, random in faults:
            group.create_task(attempt(fault, random))
    return problems, max(ends, default=None) or await environment.database_now()


def format_result(row: FaultResult) -> str:
    """One row as text."""
    return (
        f"{row.name:46} {row.times:5} {row.runs:6} {len(row.violations):10} {row.resumed_s:10.1f}"
    )


HEADER = f"{'fault':46} {'times':>5} {'runs':>6} {'violations':>10} {'resumed, s':>10}"


def format_table(suite: FaultSuite) -> str:
    """The result."""
    run_count = len(suite.load.requested)
    total = FaultResult(
        f"{run_count} runs",
        suite.times,
        sum(row.runs for row in suite.rows),
        max((row.resumed_s for row in suite.rows), default=0.0),
        suite.violations,
    )
    statuses = ", ".join(
        f"{number} {saga} {status}" for (saga, status), number in sorted(suite.statuses.items())
    )
    return "\n".join([HEADER, *map(format_result, suite.rows), format_result(total), statuses])


def find_leaks(environment: FaultEnvironment) -> list[str]:
    """Find secrets in the logs: no process may log one."""
    secret = re.compile("|".join(map(re.escape, environment.canaries)))
    found = []
    for path in sorted(each for each in environment.directory.iterdir() if each.is_file()):
        text = path.read_text(errors="replace")
        if leak := secret.search(text):
            before = text[max(0, leak.start() - 80) : leak.start()]
            found.append(f"P7: a secret is in {path.name}, after {before!r}")
    return found
