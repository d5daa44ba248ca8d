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

from tests.faults.fault import Fault
from tests.faults.load import BUSY, Load
from tests.faults.site import READY_S, Site
from tests.faults.verdict import Verdict

MIXED = "mixed at random"
SPARE = 1  # Tries of a kind alone beyond its number of times.
AT_ONCE = 3  # Faults under way at the same time, at most, when they are mixed.
PATIENCE = 90.0  # Seconds that are waited for progress before it counts as none.
PROMISE = re.compile(r"\bP[1-7]: ")


@dataclass
class Row:
    """One line of the table; `resumed_s` is the longest time without progress after an end."""

    name: str
    times: int = 0
    runs: int = 0
    resumed_s: float = 0.0
    violations: list[str] = field(default_factory=list)
    spans: list[tuple[datetime, datetime]] = field(default_factory=list)

    def met(self, life):
        """Whether a run that lived then lived through one of these faults."""
        begun, ended = life
        return any(begun <= until and since <= ended for since, until in self.spans)


@dataclass
class Suite:
    """Faults against one site; `rows` are the results so far."""

    site: Site
    load: Load
    random: Random
    tell: Callable[[str], object] = print
    rows: list[Row] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self._verdict = Verdict(self.site, self.load)
        self._open: list[Row] = []  # whose runs have not settled yet
        self._began = monotonic()

    @property
    def times(self):
        return sum(row.times for row in self.rows)

    @property
    def violations(self):
        """Each once, however many kinds it counts for."""
        return list(dict.fromkeys(each for row in self.rows for each in row.violations))

    async def endure(self, fault: Fault, times: int):
        """One kind of fault, some times; the verdict on the runs under it is for `conclude`."""
        await self._do(Row(fault.name), times, times + SPARE, lambda: [fault])

    async def mix(self, faults: Sequence[Fault], times: int):
        """Several kinds at once, chosen at random, some times; a try does two or more."""
        await self._do(Row(MIXED), times, times, lambda: self._compatible(faults))

    async def _do(self, row: Row, times: int, tries: int, choose: Callable[[], Sequence[Fault]]):
        """
        Do so many in so many tries at the most.

        One that does not come about is told, and does not count: others kept it from that, or who
        would have met it was not there in that moment.
        """
        self._open.append(row)
        self.load.go_on()
        for _ in range(tries):
            if row.times < times:
                await self._once(row, choose())
        if row.times < times:
            row.violations.append(f"{row.name}: only {row.times} came about in {tries} tries")
        self._tell_of(row)

    def _compatible(self, faults):
        """Some faults of which no two need the same for themselves."""
        chosen: list[Fault] = []
        needed: set[str] = set()
        most = self.random.randint(2, AT_ONCE)
        for fault in self.random.sample(list(faults), k=len(faults)):
            if len(chosen) < most and needed.isdisjoint(fault.mixes):
                chosen.append(fault)
                needed |= set(fault.mixes)
        return chosen

    async def _once(self, row: Row, faults: Sequence[Fault]):
        names = " + ".join(fault.name for fault in faults)
        await self.load.busy()
        begun = await self.site.now()
        await self.site.throw_rubbish()
        randoms = [self.random]
        if len(faults) > 1:
            randoms = [Random(self.random.random()) for _ in faults]
        problems, over = await inject(self.site, list(zip(faults, randoms, strict=True)))
        for problem in problems:
            if PROMISE.search(problem):
                row.violations.append(f"{names}: {problem}")
            else:
                self.tell(f"          not counted in {names}: {problem}")
        ended = await self.site.now()
        row.spans.append((begun, ended))
        row.times += max(0, len(faults) - len(problems))  # one may have several problems
        allowed = max(fault.resumes_s for fault in faults)
        resumed = await self.load.resumed(over, patience=PATIENCE)
        row.resumed_s = max(row.resumed_s, PATIENCE if resumed is None else resumed)
        if resumed is None or resumed > allowed:
            told = "none" if resumed is None else f"{resumed:.1f} s"
            row.violations.append(f"progress after {names}: {told}, {allowed:g} s are allowed")
        met = await self.load.under(begun, ended)
        row.runs += met
        if met < BUSY:
            row.violations.append(f"{names}: only {met} runs lived through it")

    async def conclude(self):
        """Let everything settle, and hold every promise against the runs since the last time."""
        rows, self._open = self._open, []
        last = rows[-1]
        if unready := await self.site.unready():
            last.violations.append(f"P7: {READY_S:g} s after the last fault not ready: {unready}")
        unsettled = await self.load.settle()
        if unsettled:
            last.violations.append(f"P1: {len(unsettled)} runs neither end nor need anybody")
        try:
            await self._verdict.calm()
        except TimeoutError:
            last.violations.append("P6: messages or commands are left that nobody takes")
        self._verdict.rubbish = self.site.rubbish
        findings = await self._verdict.judge()
        for violation, life in findings.violations:
            met = [row for row in rows if life and row.met(life)]
            for row in met or [last]:
                row.violations.append(violation)
        self.statuses += findings.statuses
        self.rows += rows
        self.tell(
            f"{monotonic() - self._began:6.0f} s  {findings.runs} runs judged,"
            f" {len(findings.violations)} violations"
        )
        for violation, _ in findings.violations[:5]:
            self.tell(f"          {violation}")

    async def look_back(self):
        """Judge every run once more: something late may have found one that had ended."""
        self._verdict.begin_again()
        before, self.statuses = self.statuses, Counter()
        self._open.append(Row("all of them, at the end"))
        await self.conclude()
        assert sum(self.statuses.values()) >= sum(before.values())

    def _tell_of(self, row):
        self.tell(f"{monotonic() - self._began:6.0f} s  {line(row)}")
        for each in row.violations[:5]:
            self.tell(f"          {each}")


async def inject(site: Site, faults: Sequence[tuple[Fault, Random]]) -> tuple[list[str], datetime]:
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
            ends.append(await fault.inject(site, random) or await site.now())
        except* Exception as errors:  # noqa: BLE001 - a bug of the suite is one more problem
            problems.extend(f"{type(each).__name__}: {each}" for each in errors.exceptions)

    async with asyncio.TaskGroup() as group:
        for fault, random in faults:
            group.create_task(attempt(fault, random))
    return problems, max(ends, default=None) or await site.now()


def line(row: Row) -> str:
    """One row as text."""
    return (
        f"{row.name:46} {row.times:5} {row.runs:6} {len(row.violations):10} {row.resumed_s:10.1f}"
    )


HEADER = f"{'fault':46} {'times':>5} {'runs':>6} {'violations':>10} {'resumed, s':>10}"


def table(suite: Suite) -> str:
    """The result."""
    asked = len(suite.load.asked)
    total = Row(
        f"{asked} runs",
        suite.times,
        sum(row.runs for row in suite.rows),
        max((row.resumed_s for row in suite.rows), default=0.0),
        suite.violations,
    )
    statuses = ", ".join(
        f"{number} {saga} {status}" for (saga, status), number in sorted(suite.statuses.items())
    )
    return "\n".join([HEADER, *map(line, suite.rows), line(total), statuses])


def leaks(site: Site) -> list[str]:
    """Where a secret was printed: nothing that any process said may have one."""
    secret = re.compile("|".join(map(re.escape, site.canaries)))
    found = []
    for path in sorted(each for each in site.directory.iterdir() if each.is_file()):
        printed = path.read_text(errors="replace")
        if leak := secret.search(printed):
            before = printed[max(0, leak.start() - 80) : leak.start()]
            found.append(f"P7: a secret is printed in {path.name}, after {before!r}")
    return found
