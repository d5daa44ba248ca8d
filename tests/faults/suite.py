"""
The suite: faults one after another and mixed, under a load that never ends, and then the verdict.

Each kind of fault is done its number of times; after each the clock runs until a run that was
started since is completed. Then what was asked for settles, and P1 to P7 are held against every run
of that kind. The result is a table.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from time import monotonic

from tests.faults.fault import Fault
from tests.faults.load import Load
from tests.faults.site import Site
from tests.faults.verdict import Verdict

MIXED = "mixed at random"
AT_ONCE = 3  # Faults under way at the same time, at most, when they are mixed.
PATIENCE = 90.0  # Seconds that are waited for progress before it counts as none.


@dataclass
class Row:
    """One line of the table; `resumed_s` is the longest time without progress after an end."""

    name: str
    times: int = 0
    runs: int = 0
    resumed_s: float = 0.0
    violations: list[str] = field(default_factory=list)


@dataclass
class Suite:
    """Faults against one site; `rows` are the results so far."""

    site: Site
    load: Load
    random: Random
    tell: object = print
    rows: list[Row] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self._verdict = Verdict(self.site, self.load)
        self._began = monotonic()

    @property
    def times(self):
        return sum(row.times for row in self.rows)

    @property
    def violations(self):
        return [each for row in self.rows for each in row.violations]

    async def endure(self, fault: Fault, times: int):
        """One kind of fault, some times, and the verdict on the runs under it."""
        row = Row(fault.name)
        self.load.go_on()
        for _ in range(times):
            await self._once(row, [fault])
        await self._conclude(row)

    async def mix(self, faults: Sequence[Fault], times: int):
        """Several kinds at once, chosen at random."""
        row = Row(MIXED)
        self.load.go_on()
        while row.times < times:
            chosen = self.random.sample(list(faults), k=self.random.randint(2, AT_ONCE))
            await self._once(row, chosen)
        await self._conclude(row)

    async def _once(self, row: Row, faults: Sequence[Fault]):
        names = " + ".join(fault.name for fault in faults)
        begun = await self.site.now()
        await self.site.throw_rubbish()
        try:
            if len(faults) > 1:
                await self._together(faults)
            else:
                await faults[0].inject(self.site, self.random)
        except AssertionError as error:
            row.violations.append(f"{names}: {error}")
        ended = await self.site.now()
        row.times += len(faults)
        allowed = max(fault.resumes_s for fault in faults)
        resumed = await self.load.resumed(ended, patience=PATIENCE)
        row.resumed_s = max(row.resumed_s, PATIENCE if resumed is None else resumed)
        if resumed is None or resumed > allowed:
            told = "none" if resumed is None else f"{resumed:.1f} s"
            row.violations.append(f"progress after {names}: {told}, {allowed:g} s are allowed")
        row.runs += await self.load.under(begun, ended)

    async def _together(self, faults):
        """Each on its own processes: who is killed already cannot be told to stop."""
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                group.create_task(fault.inject(self.site, Random(self.random.random())))

    async def _conclude(self, row: Row):
        unsettled = await self.load.settle()
        if unsettled:
            row.violations.append(f"P1: {len(unsettled)} runs neither end nor need anybody")
        try:
            await self._verdict.calm()
        except TimeoutError:
            row.violations.append("P6: messages or commands are left that nobody takes")
        self._verdict.rubbish = self.site.rubbish
        findings = await self._verdict.judge()
        row.violations += findings.violations
        self.statuses += findings.statuses
        self.rows.append(row)
        self.tell(f"{monotonic() - self._began:6.0f} s  {line(row)}")
        for each in row.violations[:5]:
            self.tell(f"          {each}")


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
