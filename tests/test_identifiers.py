"""Run ids name the time of their request, and an invalid one is explained."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from saga_engine.identifiers import invalid_run_id_reason
from tests.kit.stored_runs import run_id

NOW = datetime(2026, 11, 15, tzinfo=UTC)


WEEK, DAY = timedelta(days=7), timedelta(days=1)


@pytest.mark.parametrize(
    ("made_at", "fits"),
    [
        (NOW, True),
        (NOW - WEEK, True),
        (NOW + DAY, True),
        (NOW - WEEK - timedelta(seconds=1), False),
        (NOW + DAY + timedelta(seconds=1), False),
        (datetime(1970, 1, 1, tzinfo=UTC), False),
    ],
)
def test_a_run_id_carries_the_time_of_its_request(made_at, fits):
    problem = invalid_run_id_reason(UUID(run_id(made_at)), NOW, max_age=WEEK, max_clock_lead=DAY)
    assert (problem is None) == fits


@pytest.mark.parametrize("number", [0, 2**128 - 1])
def test_any_uuid_has_an_answer(number):
    assert invalid_run_id_reason(UUID(int=number), NOW, max_age=WEEK, max_clock_lead=DAY)
    assert invalid_run_id_reason(
        UUID(int=number & ~(0xF << 76) | 0x7 << 76), NOW, max_age=WEEK, max_clock_lead=DAY
    )
