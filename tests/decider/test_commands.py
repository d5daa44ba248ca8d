"""The commands that follow from a decision, and when the run wakes."""

from dataclasses import replace
from datetime import timedelta

import pytest

from saga_engine.decider.commands import (
    commands_in_flight,
    commands_to_send,
    is_awaited,
    wake_at,
)
from tests.kit.decider_scenario import (
    ACTION,
    NOON,
    TIMEOUT,
    DeciderScenario,
    sequential_saga,
)


def test_a_command_carries_everything_the_wire_needs():
    (command,) = DeciderScenario(sequential_saga("a")).sends
    assert (command.run_id, command.saga, command.version, command.step) == ("r-1", "trip", 1, "a")
    assert (command.direction, command.attempt, command.name) == (ACTION, 1, "do.a")
    assert command.payload == {"do": "a", "order": 7}
    assert command.idempotency_key == "r-1/a/action/1"
    assert command.deadline == NOON + TIMEOUT


def test_a_run_wakes_at_the_earliest_of_its_timeouts_and_its_deadline():
    scenario = DeciderScenario(sequential_saga("a", deadline=timedelta(minutes=1)))
    assert wake_at(scenario.saga, scenario.run) == NOON + TIMEOUT
    early = DeciderScenario(sequential_saga("a", deadline=timedelta(seconds=5)))
    assert wake_at(early.saga, early.run) == NOON + timedelta(seconds=5)


def test_a_run_that_only_waits_for_a_person_needs_no_wake_up():
    scenario = DeciderScenario(sequential_saga("a", pivot="a"))
    scenario.attempts_exhausted("a")
    assert scenario.incident.cause == "step_unknown"
    assert wake_at(scenario.saga, scenario.run) is None


def test_only_the_commands_of_the_given_events_are_sent():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    assert list(commands_to_send(scenario.run, [])) == []


@pytest.mark.parametrize("is_compensating", [False, True])
def test_the_commands_in_flight_are_those_that_were_sent(is_compensating):
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    if is_compensating:
        scenario.rejects("b")
    names = {(each.step, each.direction): each.name for each in scenario.sends}
    assert list(commands_in_flight(scenario.run, names)) == scenario.sends[-1:]


def test_only_the_last_attempt_of_a_step_in_flight_is_awaited():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.fails("a")
    [first] = scenario.sends
    assert not is_awaited(scenario.run, first), "it waits for the next attempt"
    scenario.timer_fires()
    [first, second] = scenario.sends
    assert [is_awaited(scenario.run, each) for each in (first, second)] == [False, True]
    scenario.succeeds("a")
    assert not is_awaited(scenario.run, second)
    assert not is_awaited(scenario.run, replace(second, step="of another definition"))
