"""Events become folded changes and calls of SQL functions, in order, up to the first poison."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.sql_call import SqlCall
from saga_engine.events.projections.change import Change, delete, put, upsert
from saga_engine.events.projections.change_batch import ChangeBatch
from saga_engine.events.projections.event_application import plan
from saga_engine.events.projections.projection import Projection
from saga_engine.payload.guard import NO_TIME_LIMIT
from tests.kit.read_model import BY_CUSTOMER, HISTORY, Placed, orders_projection


def recorded(position: int, name: str = "order-placed", **data: Any) -> Recorded:
    return Recorded(
        stream=f"order-{position}",
        version=1,
        position=position,
        type=name,
        schema_version=1,
        recorded_at=datetime(2026, 11, 30, tzinfo=UTC),
        id=UUID(int=position),
        data=data or {"customer": "ada", "total": "1"},
    )


def returning(result: Any) -> Projection:
    projection = Projection("one", version=1, tables=[BY_CUSTOMER])

    @projection.on(Placed)
    def placed(event, recorded) -> Change | None:
        made: Change | None = result() if callable(result) else result
        return made

    return projection


def test_changes_of_many_events_are_one_step():
    made = plan(orders_projection(), [recorded(n) for n in range(50)], set(), NO_TIME_LIMIT)
    assert len(made.events) == 50
    assert [type(step) for step in made.steps] == [ChangeBatch]


@pytest.mark.parametrize(
    ("number", "is_exact"),
    [
        ("18446744073709551615", True),
        ("18446744073709551616", False),
        ("-9223372036854775809", False),
        ("0.30000000000000004", True),
        ("0.300000000000000041", False),
        ("10000000000000000000000", True),
        ("1e-400", False),
        ('"18446744073709551616 0.300000000000000041"', True),
    ],
)
def test_a_function_of_json_gets_no_number_that_was_altered(number, is_exact):
    """Python's JSON has integers of 64 bits and floats; another program can insert more digits."""
    projection = Projection("numbers", version=1, tables=[HISTORY])

    @projection.on("order-placed")
    def placed_json(data: dict[str, Any], recorded: Recorded) -> Change:
        return upsert(HISTORY, key={"number": 1}, put={"what": str(data["total"])})

    at = datetime(2026, 11, 30, tzinfo=UTC)
    data = f'{{"total": {number}}}'
    event = EventLog(UUID(int=1)).recorded(("order-1", 1, 0, 1, at, "order-placed", 1, data, "{}"))
    made = plan(projection, [event], set(), NO_TIME_LIMIT)
    assert (made.poison is None) is is_exact


def test_sql_functions_are_called_between_the_changes_before_and_after_them():
    projection = orders_projection()

    @projection.on("order-paid")
    async def paid(data, recorded, connection) -> None: ...

    events = [recorded(1), recorded(2), recorded(3, "order-paid", by="card"), recorded(4)]
    made = plan(projection, events, set(), NO_TIME_LIMIT)
    assert [type(step) for step in made.steps] == [ChangeBatch, SqlCall, ChangeBatch]
    assert made.steps[1] == SqlCall(projection.handlers["order-paid"], {"by": "card"}, events[2])


def test_other_types_and_parked_streams_are_left_out():
    events = [recorded(1), recorded(2, "order-lost"), recorded(3)]
    made = plan(orders_projection(), events, {"order-1"}, NO_TIME_LIMIT)
    assert made.events == [events[2]]


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (recorded(2, customer="ada"), "its data does not fit Placed (total"),
        (recorded(2, customer="poison", total="1"), "placed raised ValueError at"),
    ],
)
def test_a_plan_ends_before_an_event_that_cannot_be_read_or_mapped(event, problem):
    made = plan(orders_projection(), [recorded(1), event, recorded(3)], set(), NO_TIME_LIMIT)
    assert [each.position for each in made.events] == [1]
    assert made.poison is not None
    assert made.poison.recorded == event
    assert problem in made.poison.error


def test_the_lines_of_a_pure_function_that_raised_are_kept():
    def fail() -> Change:
        raise KeyError("a value of the event")

    made = plan(returning(fail), [recorded(1)], set(), NO_TIME_LIMIT)
    assert made.poison is not None
    lines = [line.rpartition(" ")[2] for line in made.poison.trace.splitlines()]
    assert lines == ["placed", "fail"]
    assert "value" not in made.poison.trace


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({"customer": "ada"}, "placed returned a dict. Return what upsert"),
        ([put(HISTORY, key={"number": 1}, values={})], "Table order_history is not one of the"),
        (lambda: put(BY_CUSTOMER, key={"id": 1}, values={}), "has the key id, but the primary key"),
    ],
)
def test_a_result_that_is_not_a_change_of_its_tables_is_poison(result, problem):
    made = plan(returning(result), [recorded(1)], set(), NO_TIME_LIMIT)
    assert made.poison is not None
    assert problem in made.poison.error
    assert made.steps == []


@pytest.mark.parametrize(
    ("annotation", "written"), [(Change, "Change"), (list[Change], "list[Change]")]
)
def test_a_forgotten_return_is_poison(annotation, written):
    def placed(event, recorded): ...

    placed.__annotations__["return"] = annotation
    projection = Projection("one", version=1, tables=[BY_CUSTOMER])
    projection.on(Placed)(placed)
    made = plan(projection, [recorded(1)], set(), NO_TIME_LIMIT)
    assert (made.events, made.steps) == ([], [])
    assert made.poison is not None
    assert f"placed returned None, but is annotated {written}." in made.poison.error
    assert f"Return the change, or annotate {written} | None." in made.poison.error


def test_a_function_may_return_one_change_several_or_none():
    one = upsert(BY_CUSTOMER, key={"customer": "ada"})
    for result in (one, [one, delete(BY_CUSTOMER, key={"customer": "bob"})], (one,), None, []):
        made = plan(returning(result), [recorded(1)], set(), NO_TIME_LIMIT)
        assert made.poison is None
        assert bool(made.steps) is bool(result)
