"""The values of a schema are compared as JSON does."""

from typing import Any

from saga_engine.schemas.fixed_values import FixedValues, fixed_values


def test_values_are_found_as_json_compares_them():
    values = FixedValues([1, True, "1", [1, {"a": 0}], None])
    same: list[Any] = [1.0, True, "1", [1.0, {"a": 0.0}], None]
    other: list[Any] = [False, 0, "", [1], {}, [True, {"a": 0}]]
    assert all(each in values for each in same)
    assert not any(each in values for each in other)
    assert values.overlaps(FixedValues([2, 1.0]))
    assert not FixedValues([1]).overlaps(FixedValues([True]))


def test_the_first_values_are_named():
    assert FixedValues([1, "a"]).text == "1, 'a'"
    assert FixedValues([*range(7)]).text == "0, 1, 2, 3, 4 and 2 more"
    assert FixedValues([]).text == "nothing"


def test_a_schema_without_values_lists_none():
    assert fixed_values({"type": "string"}) is None
    assert [*(fixed_values({"const": None}) or [])] == [None]
