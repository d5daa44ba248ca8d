"""Durations are the same on every day: summer time, leap days, 2038, the calendar's end."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from saga_engine.decider.commands import wake_at
from saga_engine.saga.rules import MAX_TIMEOUT
from saga_engine.vocabulary import Status
from tests.kit.decider_scenario import TIMEOUT, DeciderScenario, sequential_saga

LONGEST = MAX_TIMEOUT * 12
SECOND = timedelta(seconds=1)
LAST = datetime.max.replace(tzinfo=UTC)

MOMENTS = [
    pytest.param(datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC), id="Europe's clocks go forward"),
    pytest.param(datetime(2026, 10, 25, 0, 59, 59, tzinfo=UTC), id="and back"),
    pytest.param(datetime(2028, 2, 28, 23, 59, 59, tzinfo=UTC), id="a leap day begins"),
    pytest.param(datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC), id="and ends"),
    pytest.param(datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC), id="a leap second"),
    pytest.param(datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC), id="2^31 seconds"),
    pytest.param(datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC), id="2^32 seconds"),
    pytest.param(LAST - LONGEST - timedelta(days=1), id="a year before the last of 9999"),
]


@pytest.mark.parametrize("now", MOMENTS)
def test_timeouts_and_retries_have_the_same_length_on_every_day(now):
    scenario = DeciderScenario(sequential_saga("a"), now=now)
    moments = [now]
    while not scenario.run.status.is_finished and scenario.progress_of("a").due_at is not None:
        scenario.timer_fires()
        moments.append(scenario.now)
    assert [late - early for early, late in pairwise(moments)] == [TIMEOUT, SECOND, TIMEOUT]
    assert all(moment.tzinfo is UTC for moment in moments)
    assert {each.deadline - now for each in scenario.sends} >= {TIMEOUT, 2 * TIMEOUT + SECOND}


@pytest.mark.parametrize("now", MOMENTS)
def test_the_longest_deadline_is_exact_to_the_microsecond(now):
    saga = sequential_saga("a", "b", deadline=LONGEST)
    scenario = DeciderScenario(saga, now=now)
    scenario.succeeds("a")
    scenario.succeeds("b")
    assert scenario.status is Status.COMPLETED
    scenario = DeciderScenario(saga, now=now)
    assert scenario.run.deadline == now + LONGEST
    assert wake_at(saga, scenario.run) == now + TIMEOUT
    scenario.now = now + LONGEST - timedelta(microseconds=1)
    scenario.succeeds("a")
    assert scenario.status is Status.RUNNING
    scenario.timer_fires(timedelta(microseconds=1))
    assert scenario.run.stop_cause is not None
