"""
The state of a run at one revision, as one JSON document.

What never changes in a run (ids, key, deadline) has columns of its own; the other fields are its
snapshot. `to_snapshot` and `restore_run` are the two directions. The events after that revision are
applied to the restored run.
"""

from collections.abc import Mapping
from typing import Any

from saga_engine.decider.run import Run
from saga_engine.payload.serialization import read_fields, replace_fields, to_data

SNAPSHOT_FIELDS = (
    "input",
    "status",
    "steps",
    "stop_cause",
    "compensation_cause",
    "incidents",
    "incident_count",
    "result",
    "finished_at",
)
"""The fields of a Run that are stored as its snapshot; the others never change."""


def to_snapshot(run: Run) -> dict[str, Any]:
    """The part of a run that changes, as data for `restore_run`; times are still datetimes."""
    return to_data(run, SNAPSHOT_FIELDS)


def restore_run(identity: Run, snapshot: Mapping[str, Any]) -> Run:
    """
    Give *identity* the state that `to_snapshot` made, after it was stored as JSON.

    *identity* has the fields that never change.
    """
    return replace_fields(identity, **read_fields(Run, snapshot))
