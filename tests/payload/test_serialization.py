"""Records to data and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

import orjson
import pytest

from saga_engine.decider.run import Progress
from saga_engine.payload.serialization import (
    from_data,
    has_declared_types,
    read_fields,
    replace_fields,
    to_data,
)
from saga_engine.vocabulary import Json


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Leaf:
    name: str
    colour: Colour = Colour.RED


@dataclass(frozen=True)
class Tree:
    planted: datetime
    felled: datetime | None = None
    crown: Leaf | None = None
    leaves: Mapping[int, Leaf] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    note: Json = None
    colour: Colour | None = None


NOON = datetime(2026, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)
FULL = Tree(
    NOON,
    felled=NOON,
    crown=Leaf("c"),
    leaves={1: Leaf("one"), 10: Leaf("ten")},
    marks=("a", "b"),
    note={"at": "2026-01-01T00:00:00Z", "list": [1, None, False]},
    colour=Colour.RED,
)


def test_fields_that_hold_their_default_are_left_out():
    assert to_data(Tree(NOON)) == {"planted": NOON}


def test_only_the_named_fields_are_written():
    assert to_data(FULL, ("planted", "marks")) == {"planted": NOON, "marks": ["a", "b"]}


@dataclass(frozen=True)
class Bare:
    pass


@dataclass(frozen=True)
class Ringed:
    rings: int = 0


@pytest.mark.parametrize(
    ("record", "values"),
    [
        (Progress(attempts=2), {"attempts": 3, "due_at": NOON}),
        (Progress(attempts=2), {}),
        (Ringed(), {"rings": 7}),
        (Bare(), {}),
    ],
)
def test_replace_fields_changes_only_the_named_fields(record, values):
    before = replace(record)
    assert replace_fields(record, **values) == replace(record, **values)
    assert record == before


def test_an_unknown_field_raises():
    with pytest.raises(AssertionError, match="bark"):
        replace_fields(Ringed(), bark=1)


def test_data_has_only_json_types_and_datetime():
    data = to_data(FULL)
    assert type(data["colour"]) is str
    assert data["leaves"] == {"1": {"name": "one"}, "10": {"name": "ten"}}
    assert data["marks"] == ["a", "b"]
    orjson.dumps(data)


@pytest.mark.parametrize("tree", [FULL, Tree(NOON)])
def test_a_record_is_restored_from_json(tree):
    assert from_data(Tree, orjson.loads(orjson.dumps(to_data(tree)))) == tree


def test_times_may_be_read_back_as_times():
    assert from_data(Tree, to_data(FULL)) == FULL


def test_json_fields_are_passed_on_unchanged():
    assert from_data(Tree, {"planted": NOON, "note": {"planted": "x"}}).note == {"planted": "x"}


def test_an_explicit_none_stays_none():
    assert from_data(Tree, {"planted": NOON, "crown": None}) == Tree(NOON)


def test_only_the_fields_can_be_read():
    assert read_fields(Tree, {"marks": ["a"]}) == {"marks": ("a",)}


@pytest.mark.parametrize(
    "data", [{}, {"planted": "never"}, {"planted": 3}, {"planted": NOON, "height": 3}]
)
def test_data_of_another_record_raises(data):
    with pytest.raises((TypeError, ValueError, KeyError)):
        from_data(Tree, data)


@dataclass(frozen=True)
class Fruit:
    leaf: Leaf
    seeds: int = 1
    ripe: bool = False
    note: Json = None
    other: Leaf | None = None


@pytest.mark.parametrize(
    "fruit", [Fruit(Leaf("x")), Fruit(Leaf("x"), 2**31 - 1, True, [None, {"x": 1.5}], Leaf("y"))]
)
def test_values_of_the_declared_types_are_accepted(fruit):
    assert has_declared_types(fruit)


@pytest.mark.parametrize(
    "values",
    [
        {"leaf": None},
        {"leaf": "x"},
        {"leaf": Leaf("x", "red")},  # type: ignore[arg-type]  # the mistake under test
        {"leaf": Leaf(7)},  # type: ignore[arg-type]  # the mistake under test
        {"seeds": 0},
        {"seeds": True},
        {"seeds": 2**31},
        {"seeds": None},
        {"ripe": 1},
        {"other": Leaf(None)},  # type: ignore[arg-type]  # the mistake under test
    ],
)
def test_a_value_of_another_type_is_refused(values):
    assert not has_declared_types(replace(Fruit(Leaf("x")), **values))
