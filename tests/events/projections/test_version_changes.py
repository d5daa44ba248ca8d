"""A change of a version is reported once, by the process that runs the version."""

from dataclasses import replace
from datetime import UTC, datetime

from saga_engine.events.projections.projection_table import (
    ProjectionRole,
    ProjectionState,
    StoredProjection,
)
from saga_engine.events.projections.version_changes import VersionChanges
from saga_engine.telemetry.events import ProjectionSwitched, ProjectionVersionReady

HORIZON = 1_000
FILLING = StoredProjection(
    name="orders",
    version=2,
    code_version=1,
    role=ProjectionRole.REBUILD,
    state=ProjectionState.ACTIVE,
    position=0,
    owner="a",
    updated_at=datetime(2026, 1, 1, tzinfo=UTC),
    has_tables=True,
    tables=(),
    rebuild_problem=None,
    missing_until=None,
)
FILLED = replace(FILLING, position=990)
LIVE = replace(FILLED, role=ProjectionRole.LIVE)
PREVIOUS = replace(FILLED, role=ProjectionRole.PREVIOUS)


def kinds(*looks: StoredProjection, owner: str = "a") -> list[type]:
    """What a process reports at these looks, one after the other."""
    changes = VersionChanges(owner, window=10)
    return [type(each) for look in looks for each in changes.find([look], HORIZON)]


def test_a_rebuild_is_reported_as_ready_and_as_live():
    assert kinds(FILLING, FILLED, LIVE) == [ProjectionVersionReady, ProjectionSwitched]


def test_a_version_that_was_live_before_is_reported_when_it_is_live_again():
    assert kinds(LIVE, PREVIOUS, LIVE) == [ProjectionSwitched]


def test_a_rebuild_that_falls_behind_is_not_reported_again():
    assert kinds(FILLING, FILLED, FILLING, FILLED) == [ProjectionVersionReady]


def test_a_rebuild_without_tables_or_that_is_stopped_is_not_ready():
    stopped = replace(FILLED, state=ProjectionState.STOPPED)
    assert kinds(FILLING, replace(FILLED, has_tables=False), stopped) == []


def test_what_a_process_finds_when_it_starts_is_not_reported():
    assert kinds(FILLED, FILLED) == []
    assert kinds(LIVE, LIVE) == []


def test_a_process_reports_nothing_of_what_others_run():
    assert kinds(FILLING, FILLED, LIVE, owner="b") == []
    taken_over = replace(FILLED, owner="b")
    assert kinds(FILLING, FILLED, taken_over, owner="b") == []


def test_what_happens_between_two_owners_is_reported_by_the_second():
    free, taken = replace(FILLED, owner=None), replace(FILLED, owner="b")
    assert kinds(FILLING, free, taken, owner="b") == [ProjectionVersionReady]
    assert kinds(FILLING, free, taken, owner="a") == []
