"""
Which status may follow which: the table of a run, and the table of a step for each direction.

`evolve` asserts both. `diagrams` draws them, and `make diagrams` writes the pictures into the
documents. A status that nothing may follow is final.
"""

from collections.abc import Mapping

from saga_engine.decider.run import StepStatus
from saga_engine.vocabulary import Direction, Status

RUN_TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.RUNNING: frozenset({Status.COMPENSATING, Status.COMPLETED, Status.ABANDONED}),
    Status.COMPENSATING: frozenset({Status.COMPENSATED, Status.ABANDONED}),
    # A late success can prove an effect that no command would compensate.
    Status.COMPENSATED: frozenset({Status.COMPENSATING}),
    Status.COMPLETED: frozenset(),
    Status.ABANDONED: frozenset(),
}

_COMMON: Mapping[StepStatus, frozenset[StepStatus]] = {
    # Succeeded at once: an operator's retry found that the kept reply fits.
    StepStatus.PENDING: frozenset({StepStatus.IN_FLIGHT, StepStatus.BLOCKED, StepStatus.SUCCEEDED}),
    StepStatus.IN_FLIGHT: frozenset(
        {
            StepStatus.AWAITING_RETRY,
            StepStatus.BLOCKED,
            StepStatus.SUCCEEDED,
            StepStatus.REJECTED,
            StepStatus.FAILED,
            StepStatus.UNKNOWN,
        }
    ),
    StepStatus.AWAITING_RETRY: frozenset(
        {StepStatus.IN_FLIGHT, StepStatus.BLOCKED, StepStatus.SUCCEEDED, StepStatus.REJECTED}
    ),
    StepStatus.BLOCKED: frozenset({StepStatus.PENDING, StepStatus.SUCCEEDED, StepStatus.SKIPPED}),
    StepStatus.SUCCEEDED: frozenset(),
    StepStatus.SKIPPED: frozenset(),
    StepStatus.REJECTED: frozenset({StepStatus.BLOCKED}),
    StepStatus.FAILED: frozenset({StepStatus.BLOCKED}),
    StepStatus.UNKNOWN: frozenset({StepStatus.BLOCKED}),
}

_GIVEN_UP = frozenset({StepStatus.FAILED, StepStatus.UNKNOWN})
_LATE_SUCCESS = frozenset({StepStatus.SUCCEEDED})

STEP_TRANSITIONS: Mapping[Direction, Mapping[StepStatus, frozenset[StepStatus]]] = {
    Direction.COMPENSATION: _COMMON,
    Direction.ACTION: {
        **_COMMON,
        # The run compensates, so the step is given up.
        StepStatus.AWAITING_RETRY: _COMMON[StepStatus.AWAITING_RETRY] | _GIVEN_UP,
        # The same, or an operator says that the participant did nothing.
        StepStatus.BLOCKED: _COMMON[StepStatus.BLOCKED] | _GIVEN_UP | {StepStatus.REJECTED},
        **{
            status: _COMMON[status] | _LATE_SUCCESS
            for status in (StepStatus.REJECTED, StepStatus.FAILED, StepStatus.UNKNOWN)
        },
    },
}
