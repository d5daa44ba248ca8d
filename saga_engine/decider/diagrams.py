"""
The state diagrams of a run and of a step, in Mermaid, drawn from the tables of `transitions`.

`make diagrams` writes them into README.md and docs/semantics.md.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from saga_engine.decider.run import PASSED, StepStatus
from saga_engine.decider.transitions import RUN_TRANSITIONS, STEP_TRANSITIONS
from saga_engine.vocabulary import Direction, Status

AnyStatus = TypeVar("AnyStatus", bound=StrEnum)

_SETTLED: Mapping[Direction, tuple[StepStatus, ...]] = {
    Direction.ACTION: (*PASSED, StepStatus.REJECTED, StepStatus.FAILED, StepStatus.UNKNOWN),
    Direction.COMPENSATION: PASSED,
}
"""Where a step may stay. A compensation that fails is blocked at once: an operator must look."""


def run_diagram() -> str:
    """Which status of a run may follow which."""
    finished = [status for status in Status if status.is_finished]
    return _diagram(RUN_TRANSITIONS, list(Status), finished)


def step_diagram(direction: Direction) -> str:
    """Which status may follow which, for one direction of a step."""
    return _diagram(STEP_TRANSITIONS[direction], list(StepStatus), _SETTLED[direction])


def _diagram(
    transitions: Mapping[AnyStatus, Collection[AnyStatus]],
    statuses: Sequence[AnyStatus],
    final: Collection[AnyStatus],
) -> str:
    lines = ["stateDiagram-v2", f"    [*] --> {statuses[0]}"]
    for status in statuses:
        lines += [f"    {status} --> {after}" for after in statuses if after in transitions[status]]
        if status in final:
            lines.append(f"    {status} --> [*]")
    return "\n".join(lines) + "\n"
