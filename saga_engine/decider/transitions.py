"""
Which status may follow which: the table of a run, and the table of a step for each direction.

`evolve` asserts both; `make diagrams` draws them into the documents. A status that nothing may
follow is final.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from saga_engine.decider.run import StepStatus
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
