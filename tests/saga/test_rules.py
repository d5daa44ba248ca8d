"""Every rule: what breaks it, the location in the error, and its fix."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from saga_engine import Retry, Saga
from saga_engine.errors import DefinitionError
from saga_engine.saga.rules import check, problems
from tests.kit.decider_scenario import add_step, sequential_saga
from tests.saga.definition_errors import definition_error


@pytest.mark.parametrize("name", ["", "Place", "1st", "a b", "a" * 65, "ä", "a\n", 7, None])
def test_a_saga_has_a_valid_name(name):
    def declare():
        return Saga(name, version=1, input=dict)  # here

    assert "has an invalid name" in definition_error(declare).problem


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, True, None, 2**31])
def test_a_saga_has_a_version_number(version):
    def declare():
        return Saga("a", version=version, input=dict)  # here

    assert definition_error(declare).fix == "Count versions from 1."


@pytest.mark.parametrize("deadline", [timedelta(), timedelta(-1), timedelta(361), 600, "1h"])
def test_a_deadline_is_a_timedelta_within_bounds(deadline):
    def declare():
        return Saga("a", version=1, input=dict, deadline=deadline)  # here

    error = definition_error(declare)
    assert repr(deadline) in error.problem
    assert "timedelta" in error.fix


def test_a_saga_has_steps():
    def declare():
        return Saga("a", version=1, input=dict)  # here

    assert definition_error(declare).problem == "Saga 'a' has 0 steps."


def test_a_saga_has_at_most_200_steps():
    def declare():
        saga = Saga("a", version=1, input=dict)  # here
        for number in range(201):
            add_step(saga, f"s{number}")
        return saga

    assert "has 201 steps" in definition_error(declare).problem
    check(sequential_saga(*(f"s{number}" for number in range(200))))


def test_a_step_has_a_valid_name():
    def declare():
        saga = Saga("a", version=1, input=dict)

        @saga.step(command="do.it")  # here
        def größe(order: dict) -> dict:  # noqa: PLC2401 - the mistake under test
            return {}

        return saga

    assert "has an invalid name" in definition_error(declare).problem


def test_an_invalid_step_name_is_reported_once():
    saga = Saga("a", version=1, input=dict)

    @saga.step(command="do.it")
    def größe(order: dict) -> dict:  # noqa: PLC2401 - the mistake under test
        return {}

    @größe.compensation(command="undo.it")
    def undo(order: dict) -> dict:
        return {}

    assert [each.problem for each in problems(saga)] == ["Step 'größe' has an invalid name."]


@pytest.mark.parametrize(
    "command", ["", "a b", "a..b", ".a", "a.", "a.#", "*", "a" * 128, "ä", "a\n", 5, None]
)
def test_a_command_is_a_routing_key_without_wildcards(command):
    def declare():
        saga = Saga("a", version=1, input=dict)

        @saga.step(command=command)  # here
        def book(order: dict) -> dict:
            return {}

        return saga

    assert "is not a command name" in definition_error(declare).problem


def test_the_command_of_a_compensation_is_checked_at_its_location():
    def declare():
        saga = Saga("a", version=1, input=dict)
        step = add_step(saga, "book", compensated=False)

        @step.compensation(command="no good")  # here
        def unbook(order: dict) -> dict:
            return {}

        return saga

    assert "'no good'" in definition_error(declare).problem


@pytest.mark.parametrize("timeout", [None, 30, timedelta(), timedelta(31), float("inf")])
def test_a_command_has_a_timeout(timeout):
    def declare():
        saga = Saga("a", version=1, input=dict)

        @saga.step(command="do.it", timeout=timeout)  # here
        def book(order: dict) -> dict:
            return {}

        return saga

    error = definition_error(declare)
    assert f"waits without a usable timeout (timeout={timeout!r})" in error.problem
    assert "timeout=timedelta(seconds=30)" in error.fix


WRONG_RETRY: Any = Retry
"""A policy whose fields get values of other types, which is the mistake under test."""


@pytest.mark.parametrize(
    ("retry", "problem"),
    [
        (3, "3 is not a Retry"),
        (None, "None is not a Retry"),
        (Retry(attempts=0), "attempts must be a whole number from 1 to 1000"),
        (Retry(attempts=1001), "attempts must be a whole number from 1 to 1000"),
        (WRONG_RETRY(attempts=2.5), "attempts must be a whole number from 1 to 1000"),
        (WRONG_RETRY(attempts="5"), "attempts, factor and jitter must be numbers"),
        (WRONG_RETRY(factor="2"), "attempts, factor and jitter must be numbers"),
        (WRONG_RETRY(initial=1), "initial and maximum must be timedeltas"),
        (WRONG_RETRY(maximum=60), "initial and maximum must be timedeltas"),
        (Retry(initial=timedelta(-1)), "0 <= initial <= maximum <= 30 days must hold"),
        (Retry(initial=timedelta(hours=1)), "0 <= initial <= maximum <= 30 days must hold"),
        (Retry(maximum=timedelta(31)), "0 <= initial <= maximum <= 30 days must hold"),
        (Retry(factor=0.5), "factor must be 1 to 10"),
        (Retry(factor=float("nan")), "factor must be 1 to 10"),
        (Retry(jitter=1.1), "jitter must be 0 to 1"),
        (Retry(jitter=-0.1), "jitter must be 0 to 1"),
    ],
)
def test_a_retry_policy_keeps_its_bounds(retry, problem):
    def declare():
        saga = Saga("a", version=1, input=dict)

        @saga.step(command="do.it", retry=retry)  # here
        def book(order: dict) -> dict:
            return {}

        return saga

    assert (
        definition_error(declare).problem == f"Step 'book' cannot be retried like that: {problem}."
    )


@pytest.mark.parametrize("after", ["book", {"book": 1}, 3, [dict], [None]])
def test_after_is_a_list_of_steps(after):
    def declare():
        saga = Saga("a", version=1, input=dict)
        add_step(saga, "book")

        @saga.step(command="do.it", after=after)  # here
        def pay(order: dict) -> dict:
            return {}

        return saga

    error = definition_error(declare)
    assert error.problem == "The after= of step 'pay' is not a list of steps."
    assert "after=[reserve]" in error.fix


def test_after_takes_a_step_only_in_a_list():
    def declare():
        saga = Saga("a", version=1, input=dict)
        book = add_step(saga, "book")

        @saga.step(command="do.it", after=book)  # here
        def pay(order: dict) -> dict:
            return {}

        return saga

    assert "is not a list of steps" in definition_error(declare).problem


def test_a_step_comes_after_steps_of_its_own_saga():
    def declare():
        other = add_step(Saga("other", version=1, input=dict), "book")
        saga = Saga("a", version=1, input=dict)
        add_step(saga, "book")

        @saga.step(command="do.it", after=[other])  # here
        def pay(order: dict) -> dict:
            return {}

        return saga

    assert "comes after 'book' of another saga" in definition_error(declare).problem


def test_a_step_comes_after_steps_that_exist():
    def declare():
        saga = Saga("a", version=1, input=dict)
        add_step(saga, "book")

        @saga.step(command="do.it", after=["bok"])  # here
        def pay(order: dict) -> dict:
            return {}

        return saga

    error = definition_error(declare)
    assert error.problem == "Step 'pay' comes after 'bok', which is not a step of 'a'."
    assert error.fix == "Its steps are book, pay."


def test_steps_do_not_wait_for_each_other():
    saga = Saga("a", version=1, input=dict)
    add_step(saga, "x", after=["z"])
    add_step(saga, "y", after=["x"])
    add_step(saga, "z", after=["y"])
    with pytest.raises(DefinitionError, match="wait for each other: ") as caught:
        check(saga)
    circle = caught.value.problem.rstrip(".").rpartition(": ")[2].split(" -> ")
    assert circle[0] == circle[-1]
    for later, earlier in pairwise(circle):
        assert earlier in saga.predecessors[later]
    assert caught.value.location in {step.source_location for step in saga.steps.values()}


def test_a_step_does_not_wait_for_itself():
    def declare():
        saga = Saga("a", version=1, input=dict)

        @saga.step(command="do.it", after=["pay"])  # here
        def pay(order: dict) -> dict:
            return {}

        return saga

    assert "wait for each other: pay -> pay" in definition_error(declare).problem


def test_there_is_one_pivot():
    def declare():
        saga = Saga("a", version=1, input=dict)
        add_step(saga, "p", pivot=True, compensated=False)

        @saga.step(command="do.it", pivot=True)  # here
        def q(order: dict) -> dict:
            return {}

        return saga

    assert definition_error(declare).problem == "Saga 'a' has two pivots: 'p' and 'q'."


def test_no_step_runs_beside_the_pivot():
    def declare():
        saga = Saga("a", version=1, input=dict)
        add_step(saga, "p", pivot=True, compensated=False)

        @saga.step(command="do.it", after=[])  # here
        def beside(order: dict) -> dict:
            return {}

        return saga

    assert definition_error(declare).problem == "Step 'beside' runs beside the pivot 'p'."


def test_a_step_before_the_pivot_has_a_compensation():
    def declare():
        saga = Saga("a", version=1, input=dict)

        @saga.step(command="do.it")  # here
        def book(order: dict) -> dict:
            return {}

        add_step(saga, "p", pivot=True, compensated=False)
        return saga

    error = definition_error(declare)
    assert error.problem == "Step 'book' cannot be undone."
    assert "@book.compensation(command=...)" in error.fix


@pytest.mark.parametrize("place", ["read_only", "after_pivot"])
def test_a_compensation_that_can_never_run_is_refused(place):
    def declare():
        saga = Saga("a", version=1, input=dict)
        if place == "after_pivot":
            add_step(saga, "p", pivot=True, compensated=False)
        step = add_step(saga, "z", compensated=False, read_only=place == "read_only")

        @step.compensation(command="undo.it")  # here
        def undo(order: dict) -> dict:
            return {}

        return saga

    reason = "is read-only" if place == "read_only" else "comes after the pivot 'p'"
    assert definition_error(declare).problem.endswith(f"can never run: the step {reason}.")


def test_a_compensation_sends_another_command_than_its_step():
    def declare():
        saga = Saga("a", version=1, input=dict)
        step = add_step(saga, "book", compensated=False)

        @step.compensation(command="do.book")  # here
        def unbook(order: dict) -> dict:
            return {}

        return saga

    error = definition_error(declare)
    assert "sends 'do.book', the step's own command" in error.problem
    assert error.fix.endswith("command='do.book.undo'.")


def test_every_rule_that_is_broken_is_reported():
    saga = Saga("A", version=0, input=dict)
    add_step(saga, "book", retry=None, timeout=None)
    assert len(list(problems(saga))) == 4
    pivots = Saga("a", version=1, input=dict)
    for name in ("p", "q", "r"):
        add_step(pivots, name, pivot=True, compensated=False)
    assert [each.problem[-12:] for each in problems(pivots)] == ["'p' and 'q'.", "'p' and 'r'."]
    bare = Saga("a", version=1, input=dict)
    for name in ("x", "y"):
        add_step(bare, name, compensated=False)
    assert len(list(problems(bare))) == 2


def test_a_valid_saga_passes_twice():
    saga = sequential_saga("a", "p", "z", pivot="p", deadline=timedelta(days=360))
    check(saga)
    check(saga)
