"""Mapping functions: what is read from their signatures, and what is refused."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from typing import Any, Optional, Union

import pytest
from pydantic import BaseModel

from saga_engine.errors import DefinitionError
from saga_engine.payload.annotations import split_optional
from saga_engine.payload.mapping import Parameter, PayloadMapping, source_location_of
from saga_engine.payload.payload import PayloadError


class Order(BaseModel):
    id: int


def refused(function: Callable[..., Any]) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        PayloadMapping(function)
    assert caught.value.location == f"{__file__}:{inspect.getsourcelines(function)[1]}"
    return caught.value


def test_parameters_have_a_name_a_type_and_may_be_optional():
    def function(order: Order, *, seat: int | None) -> dict:
        return {}

    assert PayloadMapping(function).parameters == (
        Parameter("order", Order, optional=False),
        Parameter("seat", int, optional=True),
    )


def test_annotations_may_be_strings():
    def function(order: "Order") -> "dict":
        return {}

    assert PayloadMapping(function).parameters[0].python_type is Order


def test_a_mapping_writes_the_payload_as_json():
    def function(order: Order) -> Order:
        return order

    assert PayloadMapping(function)({"order": Order(id=1)}) == {"id": 1}


def test_a_mapping_that_returns_another_type_than_it_says_raises():
    def function(order: Order) -> Order:
        return {"id": 1}  # type: ignore[return-value]  # the mistake under test

    with pytest.raises(PayloadError, match="dict does not fit Order"):
        PayloadMapping(function)({"order": Order(id=1)})


def test_a_mapping_raises_what_its_function_raises():
    def function(order: Order) -> dict:
        raise LookupError(order.id)

    with pytest.raises(LookupError):
        PayloadMapping(function)({"order": Order(id=1)})


def test_the_location_of_a_wrapped_function_is_that_of_its_code():
    def function(order: Order) -> dict:
        return {}

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    assert source_location_of(wrapper) == source_location_of(function)
    assert PayloadMapping(wrapper).parameters == PayloadMapping(function).parameters


def test_a_function_without_a_result_type_is_refused():
    def function(order: Order):
        return {}

    assert refused(function).problem == "function does not say what it returns."


def test_a_result_type_that_pydantic_cannot_use_is_refused():
    def function(order: Order) -> inspect.Signature:
        return inspect.signature(function)

    assert "Signature is not a payload type" in refused(function).problem


def test_a_result_type_that_is_not_defined_yet_is_refused():
    def function(order: Order) -> list["Later"]:  # type: ignore[name-defined]  # noqa: F821 - the mistake under test
        return []

    assert "name 'Later' is not defined" in refused(function).problem


def test_a_parameter_without_annotation_is_refused():
    def function(order) -> dict:
        return {}

    assert refused(function).problem == "Parameter 'order' has no annotation."


def test_positional_only_and_star_parameters_are_refused():
    def stars(*orders: Order) -> dict:
        return {}

    def keywords(**orders: Order) -> dict:
        return {}

    def positional(order: Order, /) -> dict:
        return {}

    for function in (stars, keywords, positional):
        assert refused(function).fix == "Use plain parameters, no * and no /."


async def waits(order: Order) -> dict:
    return {}


def yields(order: Order) -> Iterator[dict]:
    yield {}


async def waits_and_yields(order: Order) -> AsyncIterator[dict]:
    yield {}


@pytest.mark.parametrize("function", [waits, yields, waits_and_yields])
def test_a_function_that_does_more_than_map_is_refused(function):
    assert "take I/O and waiting out of it" in refused(function).fix


@pytest.mark.parametrize("annotation", ["Oder", "inspect.Nothing", "Order[", "Order[int, str, 3]"])
def test_an_annotation_that_cannot_be_read_is_refused(annotation):
    def function(order) -> dict:
        return {}

    function.__annotations__["order"] = annotation
    assert "An annotation of function cannot be read" in refused(function).problem


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int, (int, False)),
        (int | None, (int, True)),
        (Optional[int], (int, True)),  # noqa: UP045 - the other spelling is the point
        (int | str, (int | str, False)),
        (Union[int, str, None], (int | str, True)),  # noqa: UP007 - the same
        (Any, (Any, True)),
        (type(None), (type(None), False)),
        (list[int | None], (list[int | None], False)),
    ],
)
def test_split_optional_removes_none(kind, expected):
    assert split_optional(kind) == expected


def test_an_undefined_annotation_names_the_module():
    def function(order) -> dict:
        return {}

    function.__annotations__["order"] = "Local"
    assert refused(function).fix.startswith(f"Define Local at the top level of {__name__}")


class Shop:
    """Holds what a declaration cannot use."""

    def method(self, order: Order) -> dict:
        return {}

    @classmethod
    def of_the_class(cls, order: Order) -> dict:
        return {}

    @staticmethod
    def alone(order: Order) -> dict:
        return {}


@pytest.mark.parametrize("name", ["method", "of_the_class", "alone"])
def test_a_function_of_a_class_is_refused(name):
    error = refused(vars(Shop)[name])
    assert error.problem == f"Shop.{name} is declared in a class."
    assert "outside the class" in error.fix


def test_a_lambda_is_refused():
    error = refused(lambda order: order)
    assert error.problem == "A lambda is declared where a function belongs."
    assert "`def`" in error.fix
