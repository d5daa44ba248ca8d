"""A function of a projection that cannot work is refused where it is declared."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from saga_engine.errors import DefinitionError, collect_errors
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.projections.change import Change
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_rules import problems
from tests.kit.read_model import BY_ID, Cancelled, Placed, history_projection, orders_projection


def declared() -> Projection:
    return Projection("orders", version=1, tables=[BY_ID])


def refused(declare: Callable[[Projection], object]) -> str:
    lines, first = inspect.getsourcelines(declare)
    (here,) = [first + n for n, line in enumerate(lines) if line.rstrip().endswith("# here")]
    with pytest.raises(DefinitionError) as caught:
        declare(declared())
    assert caught.value.location == f"{__file__}:{here}"
    return str(caught.value)


def test_functions_are_found_by_the_name_of_their_event():
    handlers = orders_projection().handlers
    assert list(handlers) == ["order-placed", "order-cancelled"]
    assert handlers["order-placed"].event_type is not None
    assert not handlers["order-placed"].is_sql
    assert history_projection().handlers["order-placed"].is_sql
    assert history_projection().handlers["order-cancelled"].event_type is None


def test_a_projection_names_the_line_it_is_declared_on():
    projection = declared()
    assert projection.source_location.startswith(f"{__file__}:")
    assert repr(projection) == "Projection('orders', version=1, events=[])"


def test_a_class_that_is_not_an_event_is_refused():
    class Other(BaseModel):
        pass

    def declare(projection):
        @projection.on(Other)  # here
        def other(event: Other, recorded: Recorded) -> Change: ...

    assert "Other is not an event. Declare it with" in refused(declare)


def test_a_name_that_no_event_has_is_refused():
    def declare(projection):
        @projection.on("Fee Charged")  # here
        def charged(event, recorded: Recorded) -> Change: ...

    assert "'Fee Charged' is not the name of an event. Use words" in refused(declare)


def test_an_event_has_one_function():
    def declare(projection):
        @projection.on(Placed)
        def first(event: Placed, recorded: Recorded) -> Change: ...

        @projection.on("order-placed")  # here
        def second(event, recorded) -> Change: ...

    assert "has two functions for 'order-placed', the other at" in refused(declare)


def test_a_function_takes_what_it_gets():
    def too_few(projection):
        @projection.on(Placed)  # here
        def placed(event: Placed) -> Change: ...

    def sql_without_connection(projection):
        @projection.on(Placed)  # here
        async def placed(event: Placed, recorded: Recorded) -> None: ...

    def keyword(projection):
        @projection.on(Placed)  # here
        def placed(event: Placed, *, recorded: Recorded) -> Change: ...

    assert "Give this function 2: event, recorded." in refused(too_few)
    assert "Give this async function 3: event, recorded, conn" in refused(sql_without_connection)
    assert "Give this function 2" in refused(keyword)


def test_a_function_is_annotated_with_what_it_gets():
    def other_event(projection):
        @projection.on(Placed)  # here
        def placed(event: Cancelled, recorded: Recorded) -> Change: ...

    def other_second(projection):
        @projection.on(Placed)  # here
        def placed(event: Placed, recorded: str) -> Change: ...

    assert "placed takes Cancelled, and gets Placed." in refused(other_event)
    assert "placed takes str as its second parameter" in refused(other_second)


def test_a_function_says_that_it_returns_changes():
    def nothing(projection):
        @projection.on(Placed)  # here
        def placed(event: Placed, recorded: Recorded): ...

    def other(projection):
        @projection.on(Placed)  # here
        def placed(event: Placed, recorded: Recorded) -> list[dict[str, str]]: ...

    def sql(projection):
        @projection.on(Placed)  # here
        async def placed(event: Placed, recorded: Recorded, connection) -> Change: ...

    assert "Annotate its result: Change, list[Change] or Change | None." in refused(nothing)
    assert "placed does not say that it returns a change" in refused(other)
    assert "annotate its result with None" in refused(sql)


@pytest.mark.parametrize(
    "result",
    [
        Change,
        Change | None,
        list[Change],
        tuple[Change, ...],
        Sequence[Change],
        list[Change] | None,
    ],
)
def test_one_change_several_or_none_may_be_returned(result):
    def placed(event: Placed, recorded: Recorded): ...

    placed.__annotations__["return"] = result
    projection = declared()
    projection.on(Placed)(placed)
    assert projection.handlers["order-placed"].function is placed


def test_a_plain_function_is_needed():
    def declare(projection):
        projection.on(Placed)(lambda event, recorded: None)  # here

    assert "A lambda is declared where a function belongs." in refused(declare)


def test_mistakes_are_collected_for_the_check_command():
    with collect_errors() as errors:
        projection = declared()

        @projection.on(Placed)
        def placed(event: Placed) -> Change: ...

        @projection.on(Cancelled)
        def cancelled(event: Cancelled) -> Change: ...

    assert len(errors) == 2
    assert projection.handlers == {}


def test_a_function_of_a_name_takes_json():
    def a_class(projection):
        @projection.on("order-placed")  # here
        def placed(event: Placed, recorded: Recorded) -> Change: ...

    def a_class_or_none(projection):
        @projection.on("order-placed")  # here
        def placed(event: Placed | None, recorded: Recorded) -> Change: ...

    for each in (a_class, a_class_or_none):
        assert "gets the JSON of 'order-placed'. Write @....on(" in refused(each)


@pytest.mark.parametrize(
    "annotation", [Any, object, dict, dict[str, Any], Mapping[str, Any], list[int], dict | None]
)
def test_json_is_annotated_in_many_ways(annotation):
    def placed(event, recorded: Recorded) -> Change: ...

    placed.__annotations__["event"] = annotation
    declared().on("order-placed")(placed)


def test_a_decorator_without_an_event_names_the_function():
    def declare(projection):
        @projection.on  # here
        def placed(event: Placed, recorded: Recorded) -> Change: ...

    assert "placed is declared without an event. Write @....on(Event)." in refused(declare)


def test_a_table_that_is_not_in_a_list_is_refused_where_the_projection_is_declared():
    line = sys._getframe().f_lineno + 2
    with pytest.raises(DefinitionError, match="has a Table as its tables") as caught:
        Projection("orders", version=1, tables=BY_ID)  # type: ignore[arg-type]
    assert caught.value.location == f"{__file__}:{line}"


def test_a_mistake_is_reported_alone():
    with collect_errors() as errors:
        projection = Projection("orders", version=1, tables=BY_ID)  # type: ignore[arg-type]

        @projection.on(Placed)
        def placed(event: Placed) -> Change: ...

    assert [each.problem for each in errors] == [
        "Projection 'orders' has a Table as its tables.",
        "placed does not take what it gets.",
    ]
    assert not list(problems([projection]))
