"""
The suite: faults one after another and mixed, under a load that never ends, and then the verdict.

Each kind of fault is done its number of times; from its end the clock runs until a run that was
started since is completed. After a group of kinds what was asked for settles, and P1 to P7 are held
against every run; what is wrong with a run counts for every kind of the group that it lived
through. The result is a table.
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
from tests.faults.fault import Fault
from tests.faults.load_generator import MIN_UNFINISHED, LoadGenerator
from tests.faults.promise_checker import PromiseChecker

MIXED = "mixed at random"
EXTRA_TRIES = 1  # Tries of a kind alone beyond its number of times.
MAX_CONCURRENT_FAULTS = 3  # Faults under way at the same time, at most, when they are mixed.
PROGRESS_TIMEOUT_S = 90.0  # Seconds that are waited for progress before it counts as none.
PROMISE = re.compile(r"\bP[1-7]: ")


@dataclass
class FaultResult:
    """One line of the table; `resumed_s` is the longest time without progress after an end."""

    name: str
    times: int = 0
    runs: int = 0
    resumed_s: float = 0.0
    violations: list[str] = field(default_factory=list)
    fault_intervals: list[tuple[datetime, datetime]] = field(default_factory=list)

    def overlaps(self, run_interval):
        """Whether a run that lived then lived through one of these faults."""
        begun, ended = run_interval
        return any(begun <= until and since <= ended for since, until in self.fault_intervals)


@dataclass
class FaultSuite:
    """Faults against one site; `rows` are the results so far."""

    environment: FaultEnvironment
    load: LoadGenerator
    random: Random
    print_line: Callable[[str], object] = print
    rows: list[FaultResult] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self._checker = PromiseChecker(self.environment, self.load)
        self._unchecked: list[FaultResult] = []  # whose runs have not settled yet
        self._started_at = monotonic()

    @property
    def times(self):
        return sum(row.times for row in self.rows)

    @property
    def violations(self):
        """Each once, however many kinds it counts for."""
        return list(dict.fromkeys(each for row in self.rows for each in row.violations))

    async def run_fault(self, fault: Fault, times: int):
        """One kind of fault, some times; the verdict on the runs under it is for `conclude`."""
        await self._repeat(FaultResult(fault.name), times, times + EXTRA_TRIES, lambda: [fault])

    async def run_mixed(self, faults: Sequence[Fault], times: int):
        """Several kinds at once, chosen at random, some times; a try does two or more."""
        await self._repeat(FaultResult(MIXED), times, times, lambda: self._compatible(faults))

    async def _repeat(
        self, row: FaultResult, times: int, tries: int, choose: Callable[[], Sequence[Fault]]
    ):
        """
        Do so many in so many tries at the most.

        One that does not come about is told, and does not count: others kept it from that, or who
        would have met it was not there in that moment.
        """
        self._unchecked.append(row)
        self.load.resume()
        for _ in range(tries):
            if row.times < times:
                await self._inject_once(row, choose())
        if row.times < times:
            row.violations.append(f"{row.name}: only {row.times} came about in {tries} tries")
        self._print_result(row)

    def _compatible(self, faults):
        """Some faults of which no two need the same for themselves."""
        chosen: list[Fault] = []
        needed: set[str] = set()
        most = self.random.randint(2, MAX_CONCURRENT_FAULTS)
        for fault in self.random.sample(list(faults), k=len(faults)):
            if len(chosen) < most and needed.isdisjoint(fault.mixes):
                chosen.append(fault)
                needed |= set(fault.mixes)
        return chosen

    async def _inject_once(self, row: FaultResult, faults: Sequence[Fault]):
        names = " + ".join(fault.name for fault in faults)
        await self.load.wait_until_busy()
        begun = await self.environment.database_now()
        await self.environment.publish_malformed()
        randoms = [self.random]
        if len(faults) > 1:
            randoms = [Random(self.random.random()) for _ in faults]
        problems, over = await inject_all(self.environment, list(zip(faults, randoms, strict=True)))
        for problem in problems:
            if PROMISE.search(problem):
                row.violations.append(f"{names}: {problem}")
            else:
                self.print_line(f"          not counted in {names}: {problem}")
        ended = await self.environment.database_now()
        row.fault_intervals.append((begun, ended))
        row.times += max(0, len(faults) - len(problems))  # one may have several problems
        allowed = max(fault.resume_limit_s for fault in faults)
        resumed = await self.load.seconds_to_resume(over, patience=PROGRESS_TIMEOUT_S)
        row.resumed_s = max(row.resumed_s, PROGRESS_TIMEOUT_S if resumed is None else resumed)
        if resumed is None or resumed > allowed:
            told = "none" if resumed is None else f"{resumed:.1f} s"
            row.violations.append(f"progress after {names}: {told}, {allowed:g} s are allowed")
        met = await self.load.count_active_between(begun, ended)
        row.runs += met
        if met < MIN_UNFINISHED:
            row.violations.append(f"{names}: only {met} runs lived through it")

    async def check_promises(self):
        """Let everything settle, and hold every promise against the runs since the last time."""
        rows, self._unchecked = self._unchecked, []
        last = rows[-1]
        if unready := await self.environment.unready_processes():
            last.violations.append(
                f"P7: {READY_TIMEOUT_S:g} s after the last fault not ready: {unready}"
            )
        unsettled = await self.load.wait_until_finished()
        if unsettled:
            last.violations.append(f"P1: {len(unsettled)} runs neither end nor need anybody")
        try:
            await self._checker.wait_until_idle()
        except TimeoutError:
            last.violations.append("P6: messages or commands are left that nobody takes")
        self._checker.rubbish = self.environment.malformed_message_ids
        findings = await self._checker.check()
        for violation, life in findings.violations:
            met = [row for row in rows if life and row.overlaps(life)]
            for row in met or [last]:
                row.violations.append(violation)
        self.statuses += findings.statuses
        self.rows += rows
        self.print_line(
            f"{monotonic() - self._started_at:6.0f} s  {findings.runs} runs judged,"
            f" {len(findings.violations)} violations"
        )
        for violation, _ in findings.violations[:5]:
            self.print_line(f"          {violation}")

    async def recheck_all(self):
        """Judge every run once more: something late may have found one that had ended."""
        self._checker.forget_checked()
        before, self.statuses = self.statuses, Counter()
        self._unchecked.append(FaultResult("all of them, at the end"))
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
    Do all of them at once, to their end.

    One that fails does not end the others: cut short they would leave a server stopped, or a
    process with a wrong clock.

    Returns:
        What went wrong with each that did not come about, and when the last of them was over.
    """
    problems: list[str] = []
    ends: list[datetime] = []

    async def attempt(fault, random):
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
    asked = len(suite.load.requested)
    total = FaultResult(
        f"{asked} runs",
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
    """Where a secret was printed: nothing that any process said may have one."""
    secret = re.compile("|".join(map(re.escape, environment.canaries)))
    found = []
    for path in sorted(each for each in environment.directory.iterdir() if each.is_file()):
        printed = path.read_text(errors="replace")
        if leak := secret.search(printed):
            before = printed[max(0, leak.start() - 80) : leak.start()]
            found.append(f"P7: a secret is printed in {path.name}, after {before!r}")
    return found
