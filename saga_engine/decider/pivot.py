"""What depends on the pivot: whether a run may still compensate, and its active deadline."""

from datetime import datetime

from saga_engine.decider.run import PASSED, Run
from saga_engine.saga.definition import Saga
from saga_engine.vocabulary import Status


def is_past_pivot(saga: Saga, run: Run) -> bool:
    """Whether the pivot succeeded or was skipped, so that the run can only go forward."""
    return saga.pivot is not None and run.steps[saga.pivot.name].action.status in PASSED


def active_deadline(saga: Saga, run: Run) -> datetime | None:
    """The deadline while it can still stop the run; an open incident suspends it."""
    applies = run.status is Status.RUNNING and run.stop_cause is None and not run.incidents
    return run.deadline if applies and not is_past_pivot(saga, run) else None
