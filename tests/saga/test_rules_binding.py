"""The rules for parameters: what a mapping function may name, and with which type."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from saga_engine import Saga
from saga_engine.saga.rules import check
from tests.saga.definition_errors import definition_error


class Order(BaseModel):
    id: int


class Seat(BaseModel):
    row: int


Row = Annotated[int, Field(gt=0)]


def typed(mapping: Callable[..., Any], reply: Any = Seat, **options: Any) -> Saga:
    """`book` replies *reply*; the step made of *mapping* comes after it."""
    saga = Saga("a", version=1, input=Order)

    @saga.step(command="do.book", reply=reply, read_only=True)
    def book(order: Order) -> dict:
        return {}

    saga.step(command="do.it", read_only=True, **options)(mapping)
    return saga


def test_a_parameter_is_a_step_or_the_input():
    def declare():
        def pay(order: Order, who: str) -> dict:  # here
            return {}

        return typed(pay)

    error = definition_error(declare)
    assert error.problem == "Parameter 'who' is neither a step nor the input."
    assert error.fix.endswith("annotate it with Order for the input.")


def test_a_step_does_not_need_its_own_reply():
    def declare():
        def pay(pay: Seat) -> dict:  # here
            return {}

        return typed(pay)

    assert definition_error(declare).problem == "Parameter 'pay' is the step itself."


def test_a_parameter_names_a_step_that_comes_before():
    def declare():
        def pay(book: Seat) -> dict:  # here
            return {}

        return typed(pay, after=[])

    error = definition_error(declare)
    assert "does not come before 'pay'" in error.problem
    assert error.fix == "Add it to after=[...] of 'pay'."


def test_a_step_that_needs_the_reply_of_a_later_step_is_declared_after_it():
    def declare():
        saga = Saga("a", version=1, input=Order)

        @saga.step(command="do.pay", read_only=True)  # here
        def pay(book: Seat) -> dict:
            return {}

        @saga.step(command="do.book", reply=Seat, read_only=True)
        def book(order: Order) -> dict:
            return {}

        return saga

    error = definition_error(declare)
    assert "does not come before 'pay'" in error.problem
    assert error.fix.startswith("'book' waits for 'pay'. Declare 'book' first")


def test_a_compensation_does_not_need_the_reply_of_a_later_step():
    def declare():
        saga = Saga("a", version=1, input=Order)

        @saga.step(command="do.book", reply=Seat)
        def book(order: Order) -> dict:
            return {}

        @book.compensation(command="undo.book")  # here
        def unbook(pay: Seat) -> dict:
            return {}

        @saga.step(command="do.pay", reply=Seat, read_only=True)
        def pay(order: Order) -> dict:
            return {}

        return saga

    assert "is compensated before 'book'" in definition_error(declare).fix


def test_a_parameter_has_the_type_of_the_reply():
    def declare():
        def pay(book: Order) -> dict:  # here
            return {}

        return typed(pay)

    assert definition_error(declare).problem == (
        "Parameter 'book' is annotated Order, but that step replies Seat."
    )


def test_a_reply_that_may_be_none_needs_an_optional_parameter():
    def declare():
        def pay(book: Seat) -> dict:  # here
            return {}

        return typed(pay, Seat | None)

    error = definition_error(declare)
    assert "may be None" in error.problem
    assert "Seat | None" in error.fix


def test_a_compensation_may_get_no_reply_of_its_own_step():
    def declare():
        saga = Saga("a", version=1, input=Order)

        @saga.step(command="do.it", reply=Seat)
        def book(order: Order) -> dict:
            return {}

        @book.compensation(command="undo.it")  # here
        def unbook(book: Seat) -> dict:
            return {}

        return saga

    error = definition_error(declare)
    assert "can time out and still have to be undone" in error.problem
    assert error.fix == "Annotate it Seat | None and undo by what the input says."


@pytest.mark.parametrize(
    ("reply", "parameter"),
    [
        (Seat, Seat),
        (Seat, Seat | None),
        (Seat | None, Seat | None),
        (int | str, int | str),
        (int | str | None, None | str | int),
        (Any, Any),
        (Row, Row),
        (list[Seat], list[Seat]),
        (dict[str, Any], dict[str, Any] | None),
    ],
)
def test_a_parameter_may_have_the_annotation_of_the_reply(reply, parameter):
    def pay(order: Order, book: Any) -> dict:
        return {}

    pay.__annotations__["book"] = parameter

    check(typed(pay, reply))


@pytest.mark.parametrize("kind", [Order | None, dict[str, int], Any, Row])
def test_an_input_of_any_type_can_be_named(kind):
    saga = Saga("a", version=1, input=kind)

    def book(order: Any) -> dict:
        return {}

    book.__annotations__["order"] = kind
    saga.step(command="do.it", read_only=True)(book)

    check(saga)
