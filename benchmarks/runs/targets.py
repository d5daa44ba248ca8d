"""
The targets of the figures of runs, and the table of `make bench`.

A figure is a ratio of two sides that were measured in turns in one invocation, or something that
depends little on the machine: a count, bytes, a share of the processor time. `first` is the figure
before the work on performance began, measured on other days and in part by other means.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from benchmarks.figures import Figure


class Goal(Enum):
    """Whether a figure must be at least or at most its target."""

    AT_LEAST = "at least"
    AT_MOST = "at most"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    One row of the table.

    Args:
        what: what is measured, and its unit.
        case: the case of `make bench` that measures it.
        first: the first figure, as it was recorded.
    """

    what: str
    case: str
    first: str
    goal: Goal
    limit: float

    def is_reached(self, value: float) -> bool:
        """Whether a figure reaches the target."""
        return value >= self.limit if self.goal is Goal.AT_LEAST else value <= self.limit


RESTATE = "Restate with TypeScript handlers"

TARGETS: Mapping[str, Target] = {
    "success_restate": Target(
        what=f"success path, runs/s, against {RESTATE}",
        case="peers",
        first="0.41",
        goal=Goal.AT_LEAST,
        limit=0.9,
    ),
    "rollback_restate": Target(
        what=f"rollback of five commands, runs/s, against {RESTATE}",
        case="peers",
        first="0.33",
        goal=Goal.AT_LEAST,
        limit=0.8,
    ),
    "success_pipeline": Target(
        what="success path, runs/s, against the pipeline of bare messages",
        case="peers",
        first="0.45",
        goal=Goal.AT_LEAST,
        limit=0.75,
    ),
    "latency_restate": Target(
        what=f"one run at a time, median, against {RESTATE}",
        case="peers",
        first="3.5",
        goal=Goal.AT_MOST,
        limit=1.5,
    ),
    "worker_cpu": Target(
        what="processor time of the worker, relative to RabbitMQ's in the same runs",
        case="peers",
        first="2.6",
        goal=Goal.AT_MOST,
        limit=1.1,
    ),
    "participant_cpu": Target(
        what="processor time of the participant, relative to RabbitMQ's in the same runs",
        case="peers",
        first="1.14",
        goal=Goal.AT_MOST,
        limit=0.6,
    ),
    "barrier": Target(
        what="success path with the barrier, runs/s, against without",
        case="barrier",
        first="0.39",
        goal=Goal.AT_LEAST,
        limit=0.6,
    ),
    "two_workers": Target(
        what="two workers on the same two cores, runs/s, against one",
        case="two-workers",
        first="0.77",
        goal=Goal.AT_LEAST,
        limit=0.95,
    ),
    "round_trips": Target(
        what="round trips to PostgreSQL for each batch",
        case="statements",
        first="8",
        goal=Goal.AT_MOST,
        limit=2.0,
    ),
    "wal_bytes": Target(
        what="WAL for each step, bytes, without full-page images",
        case="statements",
        first="3700 with them",
        goal=Goal.AT_MOST,
        limit=1500.0,
    ),
    "kept_runs": Target(
        what="runs/s with finished runs kept, against an empty database",
        case="kept-runs",
        first="1 at 1,000,000 runs",
        goal=Goal.AT_LEAST,
        limit=0.9,
    ),
    "idle_cpu": Target(
        what="processor time of an idle worker, percent of one core",
        case="waiting-runs",
        first="5",
        goal=Goal.AT_MOST,
        limit=2.0,
    ),
    "waiting_cpu": Target(
        what="the same with 100,000 runs waiting",
        case="waiting-runs",
        first="5",
        goal=Goal.AT_MOST,
        limit=2.0,
    ),
    "worker_memory": Target(
        what="memory of the worker with 100,000 runs in flight, MB",
        case="waiting-runs",
        first="not measured",
        goal=Goal.AT_MOST,
        limit=300.0,
    ),
    "list_seconds": Target(
        what="`saga-engine list`, the whole command, s",
        case="cli",
        first="0.9 to 1.4",
        goal=Goal.AT_MOST,
        limit=0.5,
    ),
}


def table(figures: Mapping[str, Figure], remarks: Mapping[str, str]) -> str:
    """
    Return the figures as a table in Markdown, in the order of TARGETS.

    Args:
        figures: by the name of their target; the others are left out.
        remarks: what was different from the target, such as the number of runs that were kept.
    """
    lines = [
        "| what | figure | interval | target | reached | first figure |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {_what(name, remarks)} | {_number(figures[name].value)} |"
        f" {_number(figures[name].low)} to {_number(figures[name].high)} |"
        f" {target.goal.value} {target.limit:g} |"
        f" {'yes' if target.is_reached(figures[name].value) else 'no'} | {target.first} |"
        for name, target in TARGETS.items()
        if name in figures
    ]
    return "\n".join(lines)


def missed(figures: Mapping[str, Figure]) -> Iterable[str]:
    """Return the names of the targets that figures miss, in the order of TARGETS."""
    return [
        name
        for name, target in TARGETS.items()
        if name in figures and not target.is_reached(figures[name].value)
    ]


def _what(name: str, remarks: Mapping[str, str]) -> str:
    remark = remarks.get(name)
    return f"{TARGETS[name].what} ({remark})" if remark else TARGETS[name].what


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
