"""
The state of a run as one JSON document, beside the columns of its row.

A Run has fields with columns of their own (ids, input, revision, status, times); the others are its
snapshot. `to_snapshot` and `restore_run` are the two directions.
"""

from collections.abc import Mapping
from typing import Any

from saga_engine.decider.run import Run
from saga_engine.payload.serialization import read_fields, replace_fields, to_data

SNAPSHOT_FIELDS = (
    "steps",
    "stop_cause",
    "compensation_cause",
    "incidents",
    "incident_count",
    "result",
)
"""The fields of a Run that are stored as its snapshot; the others have columns of their own."""


def to_snapshot(run: Run) -> dict[str, Any]:
    """The part of a run that changes, as data for `restore_run`; times are still datetimes."""
    return to_data(run, SNAPSHOT_FIELDS)


def restore_run(identity: Run, snapshot: Mapping[str, Any]) -> Run:
    """
    Give *identity* the state that `to_snapshot` made, after it was stored as JSON.

    *identity* has the fields with columns of their own.
    """
    return replace_fields(identity, **read_fields(Run, snapshot))
