"""
Which status may follow which, and the functions that change a status along these tables.

There is a table of a run, and one of a step for each direction; `make diagrams` draws them into the
documents. A status that nothing may follow is final.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from saga_engine.decider.run import ACTION, Progress, Run, StepState, StepStatus
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
            # From here, and blocked, to failed or unknown: the run stops, and it is given up.
            "awaiting_retry": "in_flight blocked succeeded rejected failed unknown",
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


def change_status(run: Run, status: Status) -> None:
    """Change the status of a run that the caller has copied."""
    assert status in RUN_TRANSITIONS[run.status], f"{run.status} cannot become {status}"
    run.status = status


def change_step(run: Run, step: str, direction: Direction, status: StepStatus) -> Progress:
    """
    Change the status of one direction of a step, in a run that the caller has copied.

    Returns:
        The new progress, a copy of the old one; the caller may change its other fields.
    """
    state, is_action = run.steps[step], direction is ACTION
    before = state.action if is_action else state.compensation
    allowed = STEP_TRANSITIONS[direction][before.status]
    assert status in allowed, f"{step}, {direction}: {before.status} cannot become {status}"
    after = replace_fields(before, status=status)
    assert isinstance(run.steps, dict), "Run.copy makes one"
    run.steps[step] = (
        StepState(after, state.compensation) if is_action else StepState(state.action, after)
    )
    return after


def settle_step(run: Run, step: str, direction: Direction, status: StepStatus) -> Progress:
    """As `change_step`, to a status in which nothing is due and the payload is not sent again."""
    progress = change_step(run, step, direction, status)
    progress.due_at = None
    progress.payload = None
    return progress
