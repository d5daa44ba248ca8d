"""
Write the figures of `make faults` into the documents, from what it has printed.

    make faults | tee FILE
    make fault-tables OUTPUT=FILE

The table goes into docs/measurements.md, the total into docs/reliability.md and README.md.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEASUREMENTS, RELIABILITY, README = (
    ROOT / name for name in ("docs/measurements.md", "docs/reliability.md", "README.md")
)
ROW = re.compile(r"^(\S.*?) +(\d+) +(\d+) +(\d+) +([\d.]+)$", re.MULTILINE)
TOTAL_NAME = re.compile(r"(\d+) runs")
SEED = re.compile(r"^seed (\d+)", re.MULTILINE)
PROGRESS = re.compile(r"^ *(\d+) s  \d+ runs checked", re.MULTILINE)
TABLE_HEAD = """\
| fault | times | runs under it | violations | longest time without progress, s |
|---|---|---|---|---|
"""


@dataclass
class Row:
    """One line of the table; `resumed_s` is the longest time until runs resumed."""

    name: str
    times: int = 0
    runs: int = 0
    violations: int = 0
    resumed_s: float = 0.0

    def add(self, other: "Row") -> None:
        """Add another line of the same fault."""
        self.times += other.times
        self.runs += other.runs
        self.violations += other.violations
        self.resumed_s = max(self.resumed_s, other.resumed_s)

    def __str__(self) -> str:
        return (
            f"| {self.name} | {self.times} | {self.runs} | {self.violations} | {self.resumed_s} |"
        )


@dataclass(frozen=True)
class Measurement:
    """What a run of the suite has printed."""

    seed: int
    minutes: int
    run_count: int
    rows: list[Row]

    @property
    def total(self) -> str:
        """The figures of all faults, as the documents have them."""
        faults, resumed_s = sum(row.times for row in self.rows), max(r.resumed_s for r in self.rows)
        return (
            f"{faults} faults, {self.run_count:,} runs, no violation; after every fault, the first"
            f" new run completed within {resumed_s} s"
        )


def read_measurement(output: str) -> Measurement:
    """
    Read what the suite has printed, on one node and on a cluster.

    Raises:
        SystemExit: it is not complete, or promises were violated.
    """
    totals, rows = [], dict[str, Row]()
    for name, times, runs, violations, resumed_s in ROW.findall(output):
        row = Row(name, int(times), int(runs), int(violations), float(resumed_s))
        if total := TOTAL_NAME.fullmatch(row.name):
            totals.append(int(total[1]))
        else:
            rows.setdefault(row.name, Row(row.name)).add(row)
    if len(totals) != 2:
        sys.exit("The output is not complete: it needs the table of one node and of a cluster.")
    if any(row.violations for row in rows.values()):
        sys.exit("The output has violations: correct what they name, and run `make faults` again.")
    seconds = _seconds(output)
    found = [row for row in rows.values() if row.times]
    return Measurement(int(SEED.findall(output)[0]), round(seconds / 60), sum(totals), found)


def _seconds(output: str) -> int:
    """The times of the last lines of both suites, which count from 0."""
    times = [int(each) for each in PROGRESS.findall(output)]
    return sum(each for each, after in zip(times, [*times[1:], 0], strict=True) if after < each)


def write_documents(measured: Measurement) -> None:
    """Replace the figures of the measurement before."""
    command = f'`make faults FAULTS="--seed {measured.seed}"`'
    table = TABLE_HEAD + "\n".join(map(str, measured.rows)) + "\n"
    _replace(MEASUREMENTS, r"\| fault \| times(?:.*\n)(?:\|.*\n)+", table)
    _replace(MEASUREMENTS, r'`make faults FAULTS="--seed \d+"`', command)
    block = f"{command}, {measured.minutes} minutes:\n\n**{measured.total}.**\n"
    _replace(RELIABILITY, r'`make faults FAULTS="--seed \d+"`[^\0]*?\n\n\*\*[^\0]*?\*\*\n', block)
    _replace(README, r"\d+ faults, [\d,]+ runs, no violation; [^|]* s(?= \|)", measured.total)


def _replace(document: Path, pattern: str, text: str) -> None:
    replaced, count = re.subn(pattern, lambda _: text, document.read_text())
    assert count == 1, f"{count} places in {document.name} for the figures"
    document.write_text(replaced)


if __name__ == "__main__":
    write_documents(read_measurement(Path(sys.argv[1]).read_text()))
