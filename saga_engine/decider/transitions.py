"""
Which status may follow which, and RunDraft, which changes a run along these tables.

There is a table of a run, and one of a step for each direction; `make diagrams` draws them into the
documents. A status that nothing may follow is final.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from saga_engine.decider.run import Run, StepState, StepStatus
from saga_engine.payload.serialization import replace_fields
from saga_engine.vocabulary import Direction, Status

AnyStatus = TypeVar("AnyStatus", bound=StrEnum)


def _table(
    statuses: type[AnyStatus], rows: Mapping[str, str]
) -> Mapping[AnyStatus, frozenset[AnyStatus]]:
    return {
        statuses(each): frozenset(map(statuses, followers.split()))
        for each, followers in rows.items()
    }


RUN_TRANSITIONS = _table(
    Status,
    {
        "running": "compensating completed abandoned",
        "compensating": "compensated abandoned",
        "completed": "",
        "compensated": "compensating",  # a late success proves an effect that nothing covers
        "abandoned": "",
    },
)

STEP_TRANSITIONS: Mapping[Direction, Mapping[StepStatus, frozenset[StepStatus]]] = {
    Direction.ACTION: _table(
        StepStatus,
        {
            "pending": "in_flight blocked succeeded",  # succeeded: its kept reply fits at a retry
            "in_flight": "awaiting_retry blocked succeeded rejected failed unknown",
            "awaiting_retry": "in_flight blocked succeeded rejected failed unknown",  # given up
            "blocked": "pending succeeded rejected failed unknown skipped",
            "succeeded": "",
            "rejected": "blocked succeeded",  # succeeded, here and below: it arrived late
            "failed": "blocked succeeded",
            "unknown": "blocked succeeded",
            "skipped": "",
        },
    ),
    Direction.COMPENSATION: _table(
        StepStatus,
        {
            "pending": "in_flight blocked succeeded",
            "in_flight": "awaiting_retry blocked succeeded rejected failed unknown",
            "awaiting_retry": "in_flight blocked succeeded rejected",
            "blocked": "pending succeeded skipped",
            "succeeded": "",
            "rejected": "blocked",  # always, like the next two: only a person can go on
            "failed": "blocked",
            "unknown": "blocked",
            "skipped": "",
        },
    ),
}


class RunDraft:
    """
    A run that events change in place: the given run until the first change, then a copy of it.

    `run` is read as any run. Only a draft changes one, and never the one that it was given.
    """

    __slots__ = ("_steps", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self._steps: dict[str, StepState] | None = None  # of the copy, once it is made

    def change(self, **values: Any) -> None:
        """Change fields of the run."""
        self._copied_steps()
        vars(self.run).update(values)

    def change_status(self, status: Status, **values: Any) -> None:
        """Change the status of the run, and other fields."""
        before = self.run.status
        assert status in RUN_TRANSITIONS[before], f"{before} cannot become {status}"
        self.change(status=status, **values)

    def change_step(
        self, step: str, direction: Direction, status: StepStatus, **values: Any
    ) -> None:
        """Change the status of one direction of a step, and other fields of its progress."""
        state = self.run.steps[step]
        before = state.progress_of(direction)
        allowed = STEP_TRANSITIONS[direction][before.status]
        assert status in allowed, f"{step}, {direction}: {before.status} cannot become {status}"
        after = replace_fields(before, status=status, **values)
        self._copied_steps()[step] = (
            StepState(after, state.compensation)
            if direction is Direction.ACTION
            else StepState(state.action, after)
        )

    def _copied_steps(self) -> dict[str, StepState]:
        """The steps of the copy, which the first change makes."""
        if self._steps is None:
            self._steps = dict(self.run.steps)
            self.run = replace_fields(self.run, steps=self._steps)
        return self._steps
