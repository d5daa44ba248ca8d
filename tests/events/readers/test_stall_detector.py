"""Which projections and feeds are found to stand still, and when."""

from datetime import UTC, datetime

import pytest

from saga_engine.events.projections.projection_table import (
    ProjectionRole,
    ProjectionState,
    StoredProjection,
)
from saga_engine.events.readers.stall_detector import StallDetector

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def at(position, *, state=ProjectionState.ACTIVE, owner="this", name="orders"):
    """A projection at a position, as it is stored."""
    return [
        StoredProjection(
            name=name,
            version=1,
            code_version=1,
            role=ProjectionRole.LIVE,
            state=state,
            position=position,
            owner=owner,
            updated_at=NOW,
            has_tables=True,
            tables=(),
            rebuild_problem=None,
            missing_until=None,
        )
    ]


@pytest.fixture
def detector():
    return StallDetector("projection", "this", 30)


def test_a_projection_stands_still_after_the_timeout_and_until_it_moves(detector):
    assert detector.find(at(5), 9, 100) == []
    assert detector.find(at(5), 9, 129) == []
    assert detector.find(at(5), 9, 130) == [
        "projection orders has been at position 5 for 30 s, and there are events up to 9"
    ]
    assert detector.find(at(6), 9, 131) == []
    assert detector.find(at(6), 9, 160) == []
    assert len(detector.find(at(6), 9, 161)) == 1


def test_a_projection_at_the_horizon_may_stand_still(detector):
    assert detector.find(at(9), 9, 100) == []
    assert detector.find(at(9), 9, 1000) == []


def test_the_time_at_the_horizon_does_not_count(detector):
    detector.find(at(9), 9, 100)
    detector.find(at(9), 9, 1000)
    assert detector.find(at(9), 10, 1029) == []
    assert len(detector.find(at(9), 10, 1030)) == 1


@pytest.mark.parametrize("state", [ProjectionState.PAUSED, ProjectionState.STOPPED])
def test_a_paused_or_stopped_projection_need_not_move(detector, state):
    detector.find(at(5), 9, 100)
    assert detector.find(at(5, state=state), 9, 200) == []
    assert detector.find(at(5), 9, 229) == []
    assert len(detector.find(at(5), 9, 230)) == 1


@pytest.mark.parametrize(("owner", "is_found"), [("this", True), ("another", False), (None, True)])
def test_a_projection_that_another_process_runs_is_its_problem(detector, owner, is_found):
    detector.find(at(5, owner=owner), 9, 100)
    assert bool(detector.find(at(5, owner=owner), 9, 130)) is is_found


def test_projections_stand_still_each_for_itself(detector):
    detector.find([*at(5), *at(5, name="history")], 9, 100)
    [problem] = detector.find([*at(5), *at(6, name="history")], 9, 130)
    assert "orders" in problem


def test_the_time_of_waiting_does_not_count(detector):
    detector.find(at(5), 9, 100)
    assert detector.find(at(5), 9, 200, waiting={"orders"}) == []
    assert detector.find(at(5), 9, 229) == []
    assert len(detector.find(at(5), 9, 230, waiting={"history"})) == 1
