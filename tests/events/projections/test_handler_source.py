"""A misspelt column or a foreign table is found when the function is declared."""

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text

from saga_engine.errors import DefinitionError, collect_errors
from saga_engine.events.projections import change
from saga_engine.events.projections.change import add, delete, put, upsert
from saga_engine.events.projections.handler_source import check_calls

ORDERS = Table(
    "orders",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("items", Integer),
)
OTHERS = Table("others", MetaData(), Column("id", Text, primary_key=True))
table = OTHERS


def column(event, recorded):
    return upsert(ORDERS, key={"id": event.id}, put={"custmer": event.customer})


def key(event, recorded):
    return change.delete(table=ORDERS, key={"order_id": event.id})


def no_key(event, recorded):
    return put(ORDERS, values={"items": 1})  # type: ignore[call-arg]


def required(event, recorded):
    return upsert(ORDERS, key={"id": event.id}, add={"items": 1})


def sum_of_text(event, recorded):
    return add(ORDERS, key={"id": event.id}, values={"customer": 1})


def other_table(event, recorded):
    return [delete(OTHERS, key={"id": each}) for each in event.ids]


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (column, "orders has no column 'custmer'"),
        (key, "has the key order_id, but the primary key is id"),
        (no_key, "has the key empty, but the primary key is id"),
        (required, "needs customer, which the change lacks"),
        (sum_of_text, "orders.customer cannot be added to"),
        (other_table, "Table others is not one of the projection's tables"),
    ],
)
def test_a_call_that_cannot_work_is_refused_at_its_line(function, problem):
    line = function.__code__.co_firstlineno + 1
    with pytest.raises(DefinitionError, match=problem) as caught:
        check_calls(function, [ORDERS])
    assert caught.value.location == f"{__file__}:{line}"


def key_beside_a_computed_row(event, recorded):
    return upsert(ORDERS, key={"order_id": event.id}, put=event.row)


def key_beside_a_part(event, recorded):
    return put(ORDERS, key={"order_id": event.id, **event.key}, values={"items": 1})


def row_with_a_part(event, recorded):
    return put(ORDERS, key={"id": event.id}, values={"custmer": "", **event.row})


def merged_row(event, recorded):
    return put(ORDERS, key={"id": event.id}, values={"custmer": ""} | event.row)


def one_of_two(event, recorded):
    return add(ORDERS, key={"id": event.id}, values={"items": 1} if event.x else {"itms": 1})


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (key_beside_a_computed_row, "has the key order_id, but the primary key is id"),
        (key_beside_a_part, "has the key id, order_id, but the primary key is id"),
        (row_with_a_part, "orders has no column 'custmer'"),
        (merged_row, "orders has no column 'custmer'"),
        (one_of_two, "orders has no column 'itms'"),
    ],
)
def test_a_name_that_the_source_shows_is_checked_beside_those_that_it_does_not(function, problem):
    with pytest.raises(DefinitionError, match=problem):
        check_calls(function, [ORDERS])


def test_a_dict_with_a_name_is_checked_where_nothing_else_changes_it():
    def named(event, recorded):
        row = {"custmer": event.customer}
        return upsert(ORDERS, key={"id": event.id}, put=row)

    def incomplete(event, recorded):
        row = {"items": 1}
        return upsert(ORDERS, key={"id": event.id}, put=row)

    def changed(event, recorded):
        row = {"custmer": event.customer}
        row["customer"] = row.pop("custmer")
        return upsert(ORDERS, key={"id": event.id}, put=row)

    with pytest.raises(DefinitionError, match="custmer"):
        check_calls(named, [ORDERS])
    with pytest.raises(DefinitionError, match="needs customer"):
        check_calls(incomplete, [ORDERS])
    check_calls(changed, [ORDERS])


def test_the_nearest_column_is_named():
    for function, nearest in ((column, "customer"), (row_with_a_part, "customer")):
        with pytest.raises(DefinitionError) as caught:
            check_calls(function, [ORDERS])
        assert f"Did you mean {nearest}? Its columns are customer, id, items." in str(caught.value)

    def misspelt_key(event, recorded):
        return delete(ORDERS, key={"idd": event.id})

    with pytest.raises(DefinitionError, match=r"Did you mean id\?"):
        check_calls(misspelt_key, [ORDERS])


def test_every_mistake_of_a_function_is_collected():
    def two(event, recorded):
        return [
            put(ORDERS, key={"id": event.id}, values={"itms": 1}),
            delete(ORDERS, key={"number": 1}),
        ]

    with collect_errors() as errors:
        check_calls(two, [ORDERS])
    assert len(errors) == 2


def test_what_the_source_does_not_show_is_left_to_the_call():
    closed_over = ORDERS

    def computed(event, recorded):
        columns = {"custmer": event.customer}
        table = OTHERS
        return [
            upsert(closed_over, key={"id": event.id}, put=columns),
            upsert(closed_over, key={"id": event.id}, put={"customer": "", **columns}),
            upsert(closed_over, **event.arguments),
            delete(table, key={"x": 1}),
            event.delete(OTHERS),
        ]

    check_calls(computed, [ORDERS])


def test_a_name_that_a_part_of_the_function_binds_is_left_to_the_call():
    def shadowed(event, recorded):
        def one(table):
            return put(table, key={"id": "1"}, values={"items": 1})

        return [one(ORDERS), *(delete(table, key={"id": "1"}) for table in (ORDERS,))]

    check_calls(shadowed, [ORDERS])


def test_a_change_of_no_column_is_refused():
    def nothing(event, recorded):
        return put(ORDERS, key={"id": event.id}, values={})

    with pytest.raises(DefinitionError, match="names no column"):
        check_calls(nothing, [ORDERS])


def test_a_table_of_the_enclosing_function_is_checked():
    closed_over = ORDERS

    def misspelt(event, recorded):
        return put(closed_over, key={"id": event.id}, values={"custmer": ""})

    with pytest.raises(DefinitionError, match="custmer"):
        check_calls(misspelt, [ORDERS])


def test_a_function_without_source_is_not_checked():
    namespace: dict[str, object] = {"ORDERS": ORDERS, "delete": delete}
    exec("def gone(event, recorded): return delete(ORDERS, key={'x': 1})", namespace)
    check_calls(namespace["gone"], [ORDERS])  # type: ignore[arg-type]
