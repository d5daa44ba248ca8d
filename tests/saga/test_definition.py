"""What an author declares, and what is derived from it."""

import inspect
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from saga_engine import Retry, Saga
from saga_engine.errors import DefinitionError, collect_errors
from saga_engine.saga.rules import problems
from saga_engine.vocabulary import Direction, StepKind
from tests.kit.decider_scenario import add_step, branching_saga, sequential_saga


def line_here(function) -> str:
    lines, first = inspect.getsourcelines(function)
    (here,) = [first + n for n, line in enumerate(lines) if line.rstrip().endswith("# here")]
    return f"{__file__}:{here}"


def test_each_step_waits_for_the_one_declared_before_it():
    saga = sequential_saga("b", "a", "c")
    assert list(saga.steps) == ["b", "a", "c"]
    assert saga.predecessors == {"b": (), "a": ("b",), "c": ("a",)}


def test_after_takes_steps_and_names():
    saga = Saga("a", version=1, input=dict)
    first = add_step(saga, "first")
    add_step(saga, "second", after=[first])
    add_step(saga, "third", after=("first", "second"))
    assert saga.predecessors["second"] == ("first",)
    assert saga.predecessors["third"] == ("first", "second")


def test_ancestors_and_descendants_are_transitive():
    saga = branching_saga()
    assert saga.ancestors["join"] == {"left", "right", "root"}
    assert saga.descendants["root"] == ("left", "right", "join")
    assert saga.descendants["left"] == ("join",)


def test_the_pivot_decides_the_kind_of_a_step():
    saga = sequential_saga("a", "p", "z", pivot="p")
    assert [saga.step_kind(name) for name in saga.steps] == [
        StepKind.COMPENSATABLE,
        StepKind.PIVOT,
        StepKind.RETRIABLE,
    ]
    assert saga.pivot is saga.steps["p"]


def test_without_a_pivot_every_step_is_compensatable():
    saga = sequential_saga("a", "b")
    assert saga.pivot is None
    assert {saga.step_kind(name) for name in saga.steps} == {StepKind.COMPENSATABLE}


def test_a_step_has_a_command_for_each_direction_it_declares():
    step = add_step(Saga("a", version=1, input=dict), "a", compensated=False)
    assert step.command_spec(Direction.ACTION) is step.action_spec
    assert step.command_spec(Direction.COMPENSATION) is None


def test_a_saga_shows_its_name_version_and_steps():
    assert repr(sequential_saga("a", "b")) == "Saga('trip', version=1, steps=['a', 'b'])"


def test_a_step_declared_twice_is_refused_with_both_locations():
    def declare():
        saga = Saga("a", version=1, input=dict)
        add_step(saga, "book")

        @saga.step(command="do.it")  # here
        def book(order: dict) -> dict:
            return {}

    with pytest.raises(DefinitionError, match=r"declared twice, first at .*scenario\.py:\d+") as e:
        declare()
    assert e.value.location == line_here(declare)


def test_two_compensations_of_a_step_are_refused_with_both_locations():
    def declare():
        step = add_step(Saga("a", version=1, input=dict), "book")

        @step.compensation(command="undo.it")  # here
        def undo(order: dict) -> dict:
            return {}

    with pytest.raises(DefinitionError, match="two compensations, the other at") as caught:
        declare()
    assert caught.value.location == line_here(declare)


class Holder:
    """No payload: pydantic makes no schema of it."""


def test_an_input_type_that_pydantic_cannot_use_is_refused():
    def declare():
        Saga("a", version=1, input=Holder)  # here

    with pytest.raises(DefinitionError, match="Holder is not a payload type") as caught:
        declare()
    assert caught.value.location == line_here(declare)


def test_a_reply_type_that_pydantic_cannot_use_is_refused():
    def declare():
        @Saga("a", version=1, input=dict).step(command="do.it", reply=Holder)  # here
        def book(order: dict) -> dict:
            return {}

    with pytest.raises(DefinitionError, match="Holder is not a payload type") as caught:
        declare()
    assert caught.value.location == line_here(declare)


@pytest.mark.parametrize("what", [partial(dict), Holder, len, 3])
def test_a_step_is_declared_on_a_function(what):
    saga = Saga("a", version=1, input=dict)
    with pytest.raises(DefinitionError, match="is declared where a function belongs") as caught:
        saga.step(command="do.it")(what)
    assert caught.value.location.startswith(f"{__file__}:")


def test_a_compensation_is_declared_on_a_function_not_on_a_step():
    step = add_step(Saga("a", version=1, input=dict), "a", compensated=False)
    with pytest.raises(DefinitionError, match="A Step is declared where a function belongs"):
        step.compensation(command="undo.it")(step)


def test_the_fingerprint_is_the_same_for_the_same_structure():
    assert branching_saga().fingerprint == branching_saga().fingerprint
    assert len(branching_saga().fingerprint) == 16


class Reply(BaseModel):
    """Some reply."""


def variant(**changes) -> str:
    options: dict[str, Any] = {
        "name": "s",
        "version": 1,
        "command": "do.x",
        "undo": "undo.x",
    } | changes
    saga = Saga(
        options["name"],
        version=options["version"],
        input=options.get("input", dict),
        deadline=options.get("deadline"),
    )
    add_step(saga, options.get("first", "first"))

    def second(order: Any) -> dict:
        payload: dict = options.get("payload", {})
        return payload

    second.__annotations__["order"] = options.get("input", dict)

    step = saga.step(
        command=options["command"],
        **{
            name: options[name]
            for name in ("reply", "timeout", "retry", "after", "pivot", "read_only")
            if name in options
        },
    )(second)
    if options["undo"]:
        undo_timeout = options.get("undo_timeout", timedelta(seconds=30))
        step.compensation(command=options["undo"], timeout=undo_timeout)(second)
    return saga.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"name": "t"},
        {"version": 2},
        {"first": "other"},
        {"command": "do.y"},
        {"undo": "undo.y"},
        {"undo": None},
        {"after": []},
        {"pivot": True},
        {"read_only": True},
    ],
)
def test_the_fingerprint_changes_with_the_structure(change):
    assert variant(**change) != variant()


@pytest.mark.parametrize(
    "change",
    [
        {"input": Reply},
        {"reply": Reply},
        {"timeout": timedelta(days=1)},
        {"undo_timeout": timedelta(days=1)},
        {"retry": Retry(attempts=1)},
        {"deadline": timedelta(days=1)},
        {"payload": {"x": 1}},
        {"after": ["first"]},
    ],
)
def test_the_fingerprint_ignores_what_may_change_for_runs_in_flight(change):
    assert variant(**change) == variant()


def test_the_fingerprint_depends_on_the_order_of_steps_not_of_after():
    def joined(*after: str) -> str:
        saga = Saga("s", version=1, input=dict)
        add_step(saga, "a", after=[])
        add_step(saga, "b", after=[])
        add_step(saga, "c", after=after)
        return saga.fingerprint

    assert joined("a", "b") == joined("b", "a")
    assert sequential_saga("a", "b").fingerprint != sequential_saga("b", "a").fingerprint


def test_the_fingerprint_is_stable_across_releases():
    assert branching_saga().fingerprint == "8e020ba214b34619"


def test_a_decorator_without_its_arguments_is_refused_at_the_function():
    def declare():
        wrong: Any = Saga("a", version=1, input=dict)

        @wrong.step  # here
        def book(order: dict) -> dict:
            return {}

    with pytest.raises(DefinitionError, match=r"step is used without its command") as caught:
        declare()
    assert caught.value.location == line_here(declare)
    assert 'step(command="...")' in caught.value.fix


def test_a_bare_compensation_is_refused_too():
    step = add_step(Saga("a", version=1, input=dict), "a", compensated=False)
    with pytest.raises(DefinitionError, match=r"compensation is used without its command"):
        step.compensation(lambda order: order)


def test_a_decorated_object_that_cannot_be_called_is_refused():
    wrong: Any = Saga("a", version=1, input=dict)
    with pytest.raises(DefinitionError, match=r"step is used without its command") as caught:
        wrong.step("seat.book")
    assert caught.value.location.startswith(f"{__file__}:")


def several_mistakes():
    saga = Saga("a", version=1, input=Holder)

    @saga.step(command="do.it", reply=Holder)
    def book(order) -> dict:
        return {}

    @book.compensation(command="undo.it")
    def undo(order: dict):
        return {}

    @book.compensation(command="undo.it.again")
    def undo_again(order: dict) -> dict:
        return {}

    @saga.step(command="do.it", read_only=True)
    def pay(order: dict, book: Reply) -> dict:
        return {}

    @saga.step(command="do.it", read_only=True)  # type: ignore[no-redef]  # the mistake under test
    def pay(order: dict, pay: Reply) -> dict:  # noqa: F811 - the mistake under test
        return {}

    return saga


def test_every_mistake_of_a_module_is_collected():
    with collect_errors() as collected:
        saga = several_mistakes()
    found = [each.problem for each in collected]
    assert [each for each in found if "Holder is not a payload type" in each] == found[:2]
    assert found[2:5] == [
        "Parameter 'order' has no annotation.",
        "undo does not say what it returns.",
        f"Step 'book' has two compensations, the other at {collected[3].location}.",
    ]
    assert collected[5].problem.startswith("Step 'pay' is declared twice, first at ")
    # A reply whose type was refused has none, so the rules for parameters skip it.
    assert [each.problem for each in problems(saga)] == ["Parameter 'pay' is the step itself."]


def test_a_parameter_for_a_reply_whose_type_was_refused_is_not_checked():
    with collect_errors() as collected:
        saga = Saga("a", version=1, input=dict)

        @saga.step(command="do.it", reply=Holder, read_only=True)
        def book(order: dict) -> dict:
            return {}

        @saga.step(command="do.more", read_only=True)
        def pay(book: Reply) -> dict:
            return {}

    assert len(collected) == 1
    assert list(problems(saga)) == []


def test_without_collect_errors_the_first_mistake_raises():
    with collect_errors(), pytest.raises(ZeroDivisionError):
        raise ZeroDivisionError
    with pytest.raises(DefinitionError, match="Holder is not a payload type"):
        several_mistakes()
